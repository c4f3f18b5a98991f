"""Videos for people: what was executed beside the goal."""

from __future__ import annotations

import io

import av
import cv2
import numpy as np

_SIDE = 252  # px of a panel: even, as the codec wants
_LABEL = 28
_GREEN, _RED = (60, 160, 80), (200, 70, 60)
_HOLD = 10  # frames the last picture stays


def plan_video(
    executed: np.ndarray, goal: np.ndarray, success: bool, imagined: np.ndarray | None = None, how: str = "imagined"
) -> bytes:
    """An MP4 of executed uint8 frames (T, H, W, 3) beside the goal (H, W, 3); its last frame is framed by the outcome.

    Args:
        imagined: what the model promised, (T, H, W, 3), as a third panel; `how` these pictures were made is its label.
    """
    word = "reached" if success else "missed"
    panels = {f"executed: {word}": executed, "goal": goal[None]}
    if imagined is not None:
        panels[how] = imagined
    return encode_mp4(side_by_side(panels, _GREEN if success else _RED))


def side_by_side(panels: dict[str, np.ndarray], border: tuple[int, int, int] | None = None) -> np.ndarray:
    """Labelled uint8 frames (T, h, w, 3): each panel (T or 1, H, W, 3) enlarged, the last frame held for a second."""
    length = max(len(frames) for frames in panels.values())
    columns: list[np.ndarray] = []
    for label, frames in panels.items():
        held = np.minimum(np.arange(length), len(frames) - 1)
        column = np.stack([_panel(frames[i], label) for i in held])
        columns.append(column)
    joined = np.concatenate(columns, axis=2)
    if border is not None:
        joined[-1, _LABEL:, :4] = joined[-1, _LABEL:, -4:] = joined[-1, -4:] = joined[-1, _LABEL : _LABEL + 4] = border
    return np.concatenate([joined, np.repeat(joined[-1:], _HOLD, axis=0)])


def encode_mp4(frames: np.ndarray, fps: int = 10) -> bytes:
    """H.264 in MP4, playable in a browser. frames uint8 (T, H, W, 3), even sides."""
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _panel(frame: np.ndarray, label: str) -> np.ndarray:
    picture = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
    head = np.full((_LABEL, _SIDE, 3), 245, np.uint8)
    cv2.putText(head, label, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([head, picture])
