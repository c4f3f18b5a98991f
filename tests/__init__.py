# A package, because draccus leaves a `tests` of its own in site-packages, which would win over a folder without this.
