"""Which OpenGL draws the pictures of MuJoCo worlds where there is no display."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from collections.abc import Callable

from wm.config.errors import UserError

_SWITCHED_OFF = ("disable", "disabled", "off", "false", "0")
_ON_A_DISPLAY = ("glfw", "glx", "enable", "enabled", "on", "true", "1")

_EGL_PLATFORM_DEVICE = 0x313F
_MAX_DEVICES = 10
_OSMESA_RGBA = 0x1908


def choose_gl() -> str:
    """Set MUJOCO_GL unless it is set: egl if a device of it opens, else osmesa if it makes a context. Returns the choice.

    Call it before mujoco is imported. A library that is installed but cannot draw (libEGL without a driver) counts as missing.
    What MUJOCO_GL names is tried alone: no other library steps in for it silently. A value that needs a display (glfw) is
    passed on untried, and elsewhere than on Linux mujoco brings an OpenGL of its own ("native").

    Raises:
        UserError: nothing here can draw, or not what MUJOCO_GL says; one line with the reason and the way out.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted in _SWITCHED_OFF:
        raise UserError(f"MUJOCO_GL={wanted}: pictures are switched off; unset it, or say egl or osmesa")
    if sys.platform != "linux" or wanted in _ON_A_DISPLAY:
        return wanted or "native"
    if wanted and wanted not in _FAULT_OF:
        raise UserError(f"MUJOCO_GL={wanted}: expected egl or osmesa (or glfw, on a display)")
    faults: dict[str, str] = {}
    for name in [wanted] if wanted else list(_FAULT_OF):
        fault = _fault(name)
        if fault is None:
            os.environ["MUJOCO_GL"] = name
            return name
        faults[name] = fault
    if not wanted:
        raise UserError(
            f"this world is drawn with OpenGL, and none works here: {'; '.join(faults.values())}; {_INSTALL}"
        )
    works = [name for name in _FAULT_OF if name != wanted and _fault(name) is None]
    raise UserError(
        f"MUJOCO_GL={wanted}: {faults[wanted]}; {f'MUJOCO_GL={works[0]} would work' if works else _INSTALL}"
    )


_INSTALL = "apt-get install libegl1 libgl1-mesa-dri (or libosmesa6, which is slower)"


def _fault(name: str) -> str | None:
    """Why `name` cannot draw here, or None."""
    platform = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    if platform not in ("", name):  # PyOpenGL speaks to one library in the life of a process
        return f"{name} is ruled out by PYOPENGL_PLATFORM={platform}"
    return _FAULT_OF[name]()


def _egl_fault() -> str | None:
    """Open a device as mujoco does. It stays open: displays belong to the whole process, and closing one takes it from others."""
    egl = _load("EGL", "libEGL.so.1")
    if egl is None:
        return "libEGL is not installed"
    egl.eglGetProcAddress.argtypes, egl.eglGetProcAddress.restype = [ctypes.c_char_p], ctypes.c_void_p
    query, open_display = (
        egl.eglGetProcAddress(b"eglQueryDevicesEXT"),
        egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT"),
    )
    if not query or not open_display:
        return "libEGL cannot do without a display (it lacks eglQueryDevicesEXT)"
    devices, num_devices = (ctypes.c_void_p * _MAX_DEVICES)(), ctypes.c_int32()
    ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)(query)(
        _MAX_DEVICES, ctypes.addressof(devices), ctypes.addressof(num_devices)
    )
    candidates = [device for device in devices[: num_devices.value] if device]
    asked = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if asked is not None:
        if not asked.isdigit() or int(asked) >= len(candidates):
            return f"MUJOCO_EGL_DEVICE_ID={asked} is none of the {len(candidates)} EGL devices"
        candidates = [candidates[int(asked)]]
    as_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(open_display)
    egl.eglInitialize.argtypes, egl.eglInitialize.restype = [ctypes.c_void_p] * 3, ctypes.c_uint
    for device in candidates:
        display = as_display(_EGL_PLATFORM_DEVICE, device, None)
        if display and egl.eglInitialize(display, None, None):
            return None
    return f"libEGL is installed, but none of its {len(candidates)} devices opens (no driver?)"


def _osmesa_fault() -> str | None:
    osmesa = _load("OSMesa", "libOSMesa.so.8")
    if osmesa is None:
        return "libOSMesa is not installed"
    create, destroy = osmesa.OSMesaCreateContextExt, osmesa.OSMesaDestroyContext
    create.argtypes, create.restype = [ctypes.c_uint, *[ctypes.c_int] * 3, ctypes.c_void_p], ctypes.c_void_p
    destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
    context = create(_OSMESA_RGBA, 24, 8, 0, None)
    if not context:
        return "libOSMesa is installed, but makes no context"
    destroy(context)
    return None


_FAULT_OF: dict[str, Callable[[], str | None]] = {"egl": _egl_fault, "osmesa": _osmesa_fault}


def _load(name: str, usual: str) -> ctypes.CDLL | None:
    for path in (ctypes.util.find_library(name), usual):  # find_library needs ldconfig or gcc
        try:
            if path:
                return ctypes.CDLL(path)
        except OSError:
            continue
    return None
