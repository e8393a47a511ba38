"""Pretrain the small models of the mini scale, tokenizer and weights, on given text.

They replace downloaded backbones where no hub is reachable, since adapters need a pretrained model. The text is passed
in as paragraphs; this package does not depend on its source.
"""
