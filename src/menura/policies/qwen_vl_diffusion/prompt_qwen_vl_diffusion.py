"""The prompt of `QwenVLDiffusionPolicy`: one layout for training and inference, in the chat form of the Qwen-VL models.

<|im_start|>system\n{system_prompt}<|im_end|>\n<|im_start|>user\n      `before`
<|vision_start|><|image_pad|> … <|image_pad|><|vision_end|>            once a camera
{instruction}                                                          from the task
<|im_end|>\n<|im_start|>assistant\n                                    `after`
{reasoning}<|im_end|>                                                  in training only, where the task has one
"""

from __future__ import annotations

END_OF_TURN = "<|im_end|>"


def around_instruction(system_prompt: str | None) -> tuple[str, str]:
    """The text before the images, and that between the instruction and the answer."""
    system = "" if system_prompt is None else f"<|im_start|>system\n{system_prompt}{END_OF_TURN}\n"
    return f"{system}<|im_start|>user\n", f"{END_OF_TURN}\n<|im_start|>assistant\n"


def split_task(task: str, separator: str) -> tuple[str, str]:
    """`pick up the cup ||| The cup is left of the plate.` -> (instruction, reasoning); no reasoning is ''."""
    instruction, _, reasoning = task.partition(separator)
    return instruction.strip(), reasoning.strip()
