"""Numbers that another implementation produced, and what checks ours against them."""
