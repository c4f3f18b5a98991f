"""An encoder's model card in numbers and pictures: what `wm pretrain-encoder` writes when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from experiments.encoder_table import draw_encoders, encoder_frame, shortfalls, to_markdown
from experiments.figures import to_png
from experiments.patch_figure import draw_patches, patch_blocks
from wm.evaluation.encoder_probes import Tokens, probe_encoder
from wm.evaluation.probe_frames import ProbeFrames


@dataclass(frozen=True)
class EncoderReport:
    """Args:
    markdown: the table, where the judged encoder is not ahead, and what was left out.
    metrics: encoder -> flat metrics.
    table, patches: the same as a figure, and the principal components of patches, both PNG.
    """

    markdown: str
    metrics: Mapping[str, Mapping[str, float]]
    table: bytes
    patches: bytes


def encoder_report(
    frames: ProbeFrames, encoders: Mapping[str, Tokens], progress: Callable[[int, int, str], None] = lambda *_: None
) -> EncoderReport:
    """The probes of several encoders beside each other; the first is judged, the others are its controls.

    Args:
        encoders: such as {"trained": tokens_of(encoder), **control_tokens(untrained, 84)}.
        progress: is told encoders done, encoders in all, and the one that is shown the pictures.
    """
    scores = {}
    for number, (name, tokens) in enumerate(encoders.items()):
        progress(number, len(encoders), name)
        scores[name] = probe_encoder(frames, tokens)
    progress(len(encoders), len(encoders), "")
    frame = encoder_frame(scores)
    judged = next(iter(encoders))
    behind = [f"- {each}" for each in shortfalls(frame)]
    lines = [to_markdown(frame)]
    lines += [f"{judged} is not ahead here:", "", *behind, ""] if behind else [f"{judged} is ahead everywhere.", ""]
    lines += ["Left out:", "", *(f"- {note}" for note in frames.notes), ""] if frames.notes else []
    return EncoderReport(
        markdown="\n".join(lines),
        metrics={name: each.metrics for name, each in scores.items()},
        table=to_png(draw_encoders(frame)),
        patches=to_png(draw_patches(patch_blocks(frames, encoders[judged]))),
    )
