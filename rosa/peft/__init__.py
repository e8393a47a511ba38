"""ROSA as a method of PEFT: importing this module registers it with the installed PEFT.

::

    import peft
    import rosa.peft

    model = peft.get_peft_model(model, rosa.peft.RosaConfig(r=8, every=2, target_modules=["q_proj", "v_proj"]))
    trainer = Trainer(model, ..., callbacks=[rosa.ResampleCallback()])
    model.save_pretrained("out")                 # loads with PeftModel.from_pretrained after the same import
    model.save_pretrained("lora", as_lora=True)  # an ordinary LoRA adapter, which loads without rosa

The adapters are those of :mod:`rosa.adapters`; this package adds PEFT's interface to them.
"""

from __future__ import annotations

from rosa.peft.registration import register, require_peft

require_peft()

from rosa.peft.config import RosaConfig  # noqa: E402
from rosa.peft.lora import save_as_lora, teach_save_pretrained  # noqa: E402
from rosa.peft.model import PREFIX, RosaModel  # noqa: E402

__all__ = ["RosaConfig", "RosaModel", "save_as_lora"]

register("rosa", RosaConfig, RosaModel, PREFIX)
teach_save_pretrained()
