"""Makes the small models of the mini scale: tokenizer and weights, from given text alone.

They stand in for downloaded backbones: adapters are about fine-tuning a pretrained model, so there has to be one, also
where no hub can be reached. The text comes in as paragraphs; nothing here knows where they are from.
"""
