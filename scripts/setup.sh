#!/bin/sh
# Makes .venv from the lock files; a second run finds its stamp and returns at once, without network.
# PYTHON=/path/to/python3.11 chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
venv=.venv
stamp=$venv/.lock-sha
log=$venv/setup.log
python=${PYTHON:-python3.11}

fail() {
    echo "setup: $*" >&2
    exit 1
}

# What the stamp speaks of. Line 1: the locks, the interpreter, and the place (a moved venv has dead scripts). Line 2: pyproject.
# It fails when there is no venv, or its interpreter has gone.
fingerprint() {
    "$venv/bin/python" -I -S -c '
import hashlib, pathlib, sys
here = pathlib.Path.cwd()
locks = [(here / name).read_bytes() for name in ("requirements-torch.lock", "requirements.lock", "scripts/setup.sh")]
for parts in ([*locks, sys.version.encode(), bytes(here)], [(here / "pyproject.toml").read_bytes()]):
    print(hashlib.sha256(b"\0".join(parts)).hexdigest())' 2>/dev/null
}

up_to_date() {
    [ -f "$stamp" ] && now=$(fingerprint) && [ "$now" = "$(cat "$stamp")" ]
}

# pip says much and means little: its words go to the log, and come back only when it fails.
quietly() {
    echo "\$ $*" >>"$log"
    "$@" >>"$log" 2>&1 || {
        grep -Ev '^(WARNING:|Requirement already satisfied:) ' "$log" | tail -n 20 >&2
        fail "failed; all of it is in $log"
    }
}

if up_to_date; then exit 0; fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    fail "needs Python 3.11, but '$python' does not run; install it, or name it: make setup PYTHON=/path/to/python3.11"
[ "$version" = 3.11 ] ||
    fail "needs Python 3.11 (lerobot 0.4.4 and the lock are made for it), but '$python' is $version; name another: make setup PYTHON=/path/to/python3.11"
if [ -x "$venv/bin/python" ] && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != 3.11 ]; then
    fail "$root/$venv is not a Python 3.11 environment; remove it and run again"
fi

mkdir -p "$venv"
if command -v flock >/dev/null; then # two makes at once: the second waits, then finds the work done
    exec 9>"$venv/.setup-lock"
    flock 9
    if up_to_date; then exit 0; fi
fi

packages_stay=false
if [ -f "$stamp" ] && [ "$(fingerprint | head -n 1)" = "$(head -n 1 "$stamp")" ]; then packages_stay=true; fi
rm -f "$stamp" # from here on an interruption leaves no stamp
: >"$log"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
start=$(date +%s)

pip="$venv/bin/python -m pip"
editable="install --no-compile --no-deps --no-build-isolation --no-index -e ."

if $packages_stay; then
    echo "setup: pyproject.toml has changed: wm, editable, again"
    quietly $pip $editable
else
    echo "setup: $venv with $("$python" -V)"
    "$python" -m venv "$venv" >>"$log" 2>&1 || {
        cat "$log" >&2
        fail "'$python -m venv' failed; on Debian and Ubuntu it needs the package python3.11-venv"
    }
    echo "setup: 1/4 $(grep '^torch' requirements-torch.lock), the build for this machine (the CUDA build is large)"
    quietly $pip install --no-compile --no-warn-conflicts -r requirements-torch.lock
    echo "setup: 2/4 $(grep -c == requirements.lock) locked packages"
    quietly $pip install --no-compile --no-deps -r requirements.lock
    echo "setup: 3/4 wm, editable"
    quietly $pip $editable
    # pip would compile 400 MB of Python, most of it never imported, for minutes. Compile what is used: it also proves the install.
    # Ray in whole, since its processes start by the dozen. A shell that forbids writing bytecode would pay at every start.
    echo "setup: 4/4 first import"
    unset PYTHONDONTWRITEBYTECODE
    quietly "$venv/bin/python" -c 'import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]' \
        torch ray.train ray.tune ray.data transformers optuna mlflow h5py einops pynvml pydantic omegaconf typer rich safetensors \
        sklearn.linear_model scipy.stats matplotlib.pyplot av jaxtyping gymnasium mujoco pymunk pygame shapely cv2 \
        pytest hypothesis beartype
    quietly "$venv/bin/python" -m compileall -q -j 2 "$venv/lib/python3.11/site-packages/ray"
fi

fingerprint >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "setup: done in $(($(date +%s) - start)) s"
