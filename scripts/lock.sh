#!/bin/sh
# Writes requirements.lock from what .venv holds. To change a version: .venv/bin/pip install it, run the tests, then `make lock`.
set -eu
cd "$(dirname "$0")/.."
lock=requirements.lock

cat >"$lock.new" <<'EOF'
# Every package but torch, exact, for Python 3.11 on Linux: users and developers have the same environment.
#   1. pip install -r requirements-torch.lock          picks the CPU or the CUDA build
#   2. pip install --no-deps -r requirements.lock      no resolver: nothing here can move
#   3. pip install --no-deps --no-build-isolation -e .
# `make setup` does all three. Written by `make lock`; do not edit by hand.
#
# --no-deps is needed, not only quick: lerobot, robosuite, gym-pusht and lpips declare versions that no resolver can join, yet run
# together (`pip check` therefore complains about lerobot, robosuite and gym-pusht, and about nothing else).
# No hashes: an exact version on an index is immutable, torch has a different file on each kind of machine, and pip's hash
# mode is all or nothing. Those who need hashes can make a wheelhouse from these pins (`pip download`).
EOF
# Left out: torch, what its CUDA build brings along (nvidia-*, cuda-*, triton), pip itself, and this project.
.venv/bin/pip freeze --all --exclude-editable 2>/dev/null |
    grep -Ev '^(torch|triton|pip|wm)(==| @ )|^(nvidia|cuda)-' >"$lock.body" || true
.venv/bin/pip freeze 2>/dev/null | grep -E '^nvidia-ml-py==' >>"$lock.body" # ours, not torch's
if grep -En '://|@|\+' "$lock.body"; then
    rm -f "$lock.new" "$lock.body"
    echo "lock: the packages above were not installed from an index, so nobody else could install them" >&2
    exit 1
fi
LC_ALL=C sort -fu "$lock.body" >>"$lock.new"
rm "$lock.body"
mv "$lock.new" "$lock"
echo "lock: $(grep -c == "$lock") packages in $lock"
