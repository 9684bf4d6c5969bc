"""Make a COMET model of no skill: `python comet_model.py FOLDER`, with the Python of COMET's own
environment. The model is FOLDER/checkpoints/model.ckpt."""

import string
import sys
from pathlib import Path

import torch
import yaml
from comet.models import RegressionMetric
from transformers import XLMRobertaConfig, XLMRobertaTokenizerFast

from tokenizers import Tokenizer, models, processors

folder = Path(sys.argv[1]).resolve()
(folder / "checkpoints").mkdir(parents=True)
pieces = ["<s>", "<pad>", "</s>", "<unk>", *string.printable, "<mask>"]
tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)
XLMRobertaTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
XLMRobertaConfig(
    vocab_size=len(pieces),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=514,
).save_pretrained(folder)
torch.manual_seed(1)
options = {
    "encoder_model": "XLM-RoBERTa",
    "pretrained_model": str(folder),
    "hidden_sizes": [16],
    "layerwise_decay": 0.9,
    "local_files_only": True,
}
model = RegressionMetric(load_pretrained_weights=False, **options)
weights = {"state_dict": model.state_dict(), "hyper_parameters": options}
torch.save({**weights, "pytorch-lightning_version": "2.0.0"}, folder / "checkpoints" / "model.ckpt")
whole = {"class_identifier": "regression_metric", **options}
(folder / "hparams.yaml").write_text(yaml.safe_dump(whole))
