"""ROSA and RoSA as methods of PEFT: importing this module registers them with the installed PEFT.

ROSA is random subspace adaptation (``RosaConfig``). RoSA is robust adaptation, low-rank plus sparse (``RobustConfig``).

::

    import peft
    import rosa.peft

    model = peft.get_peft_model(model, rosa.peft.RosaConfig(r=8, every=2, target_modules=["q_proj", "v_proj"]))
    trainer = Trainer(model, ..., callbacks=[rosa.ResampleCallback()])
    model.save_pretrained("out")                 # loads with PeftModel.from_pretrained after the same import
    model.save_pretrained("lora", as_lora=True)  # an ordinary LoRA adapter, which loads without rosa

    model = peft.get_peft_model(model, rosa.peft.RobustConfig(r=8, density=0.006))
    trainer = Trainer(model, ..., callbacks=[rosa.SupportCallback()])

The adapters are those of :mod:`rosa.adapters`; this package adds PEFT's interface to them.
"""

from __future__ import annotations

from rosa.peft.registration import register, require_peft

require_peft()

from rosa.peft.config import RobustConfig, RosaConfig  # noqa: E402
from rosa.peft.loading import watch_load_adapter  # noqa: E402
from rosa.peft.lora import save_as_lora, teach_convert_to_lora, teach_save_pretrained  # noqa: E402
from rosa.peft.robust import RobustModel  # noqa: E402
from rosa.peft.rosa import RosaModel  # noqa: E402
from rosa.peft.withdrawal import teach_load_adapter  # noqa: E402

__all__ = ["RobustConfig", "RobustModel", "RosaConfig", "RosaModel", "save_as_lora"]

register("rosa", RosaConfig, RosaModel, RosaModel.prefix)
register("robust", RobustConfig, RobustModel, RobustModel.prefix)
teach_save_pretrained()
teach_convert_to_lora()
watch_load_adapter()
teach_load_adapter()
