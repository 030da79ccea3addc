"""Weight names of the families in Hugging Face's files, as templates that are read in both directions.

Ours are BERT's for everything that a BERT has (`models.pretraining`).  A `*` stands for the same text on both sides:
one word, or at the end all the rest.  Where several of our weights stand in one of theirs, they follow each other in
its first dimension.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bert_pytorch.models.families import ModelType
from bert_pytorch.models.tasks import Task


class Template(NamedTuple):
    """One of their names and ours for the same numbers."""

    theirs: str
    ours: tuple[str, ...]


def _templates(*pairs: tuple[str, str | tuple[str, ...]]) -> tuple[Template, ...]:
    return tuple(Template(theirs, (ours,) if isinstance(ours, str) else ours) for theirs, ours in pairs)


LAYER, TRANSFORM = "bert.encoder.layer.*", "cls.predictions.transform"
QKV = tuple(f"{LAYER}.attention.self.{part}.*" for part in ("query", "key", "value"))
GLU = tuple(f"{LAYER}.intermediate.{part}.weight" for part in ("dense", "linear"))

TEMPLATES: dict[ModelType, tuple[Template, ...]] = {
    "bert": (),
    "roberta": _templates(
        ("lm_head.bias", "cls.predictions.bias"),
        ("lm_head.decoder.*", "cls.predictions.decoder.*"),
        ("lm_head.dense.*", f"{TRANSFORM}.dense.*"),
        ("lm_head.layer_norm.*", f"{TRANSFORM}.LayerNorm.*"),
        ("roberta.*", "bert.*"),
    ),
    "distilbert": _templates(
        ("distilbert.transformer.layer.*.attention.q_lin.*", f"{LAYER}.attention.self.query.*"),
        ("distilbert.transformer.layer.*.attention.k_lin.*", f"{LAYER}.attention.self.key.*"),
        ("distilbert.transformer.layer.*.attention.v_lin.*", f"{LAYER}.attention.self.value.*"),
        ("distilbert.transformer.layer.*.attention.out_lin.*", f"{LAYER}.attention.output.dense.*"),
        ("distilbert.transformer.layer.*.sa_layer_norm.*", f"{LAYER}.attention.output.LayerNorm.*"),
        ("distilbert.transformer.layer.*.ffn.lin1.*", f"{LAYER}.intermediate.dense.*"),
        ("distilbert.transformer.layer.*.ffn.lin2.*", f"{LAYER}.output.dense.*"),
        ("distilbert.transformer.layer.*.output_layer_norm.*", f"{LAYER}.output.LayerNorm.*"),
        ("distilbert.embeddings.*", "bert.embeddings.*"),
        ("vocab_transform.*", f"{TRANSFORM}.dense.*"),
        ("vocab_layer_norm.*", f"{TRANSFORM}.LayerNorm.*"),
        ("vocab_projector.bias", "cls.predictions.bias"),
        ("vocab_projector.weight", "cls.predictions.decoder.weight"),
    ),
    "mosaic_bert": _templates(
        ("bert.encoder.layer.*.attention.self.Wqkv.*", QKV),
        ("bert.encoder.layer.*.mlp.gated_layers.weight", GLU),
        ("bert.encoder.layer.*.mlp.wo.*", f"{LAYER}.output.dense.*"),
        ("bert.encoder.layer.*.mlp.layernorm.*", f"{LAYER}.output.LayerNorm.*"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ),
    "modernbert": _templates(
        ("model.layers.*.attn_norm.*", f"{LAYER}.attention.LayerNorm.*"),
        ("model.layers.*.attn.Wqkv.*", QKV),
        ("model.layers.*.attn.Wo.*", f"{LAYER}.attention.output.dense.*"),
        ("model.layers.*.mlp_norm.*", f"{LAYER}.LayerNorm.*"),
        ("model.layers.*.mlp.Wi.weight", GLU),
        ("model.layers.*.mlp.Wo.*", f"{LAYER}.output.dense.*"),
        ("model.final_norm.*", "bert.LayerNorm.*"),
        ("model.embeddings.tok_embeddings.*", "bert.embeddings.word_embeddings.*"),
        ("model.embeddings.norm.*", "bert.embeddings.LayerNorm.*"),
        ("head.dense.*", f"{TRANSFORM}.dense.*"),
        ("head.norm.*", f"{TRANSFORM}.LayerNorm.*"),
        ("decoder.bias", "cls.predictions.bias"),
        ("decoder.weight", "cls.predictions.decoder.weight"),
    ),
}

POOLER = "bert.pooler"
MODERNBERT_HEAD = _templates(("head.dense.*", f"{POOLER}.dense.*"), ("head.norm.*", f"{POOLER}.LayerNorm.*"))
TASK_TEMPLATES: dict[tuple[ModelType, Task], tuple[Template, ...]] = {
    ("roberta", "sequence_classification"): _templates(
        ("classifier.dense.*", f"{POOLER}.dense.*"), ("classifier.out_proj.*", "classifier.*")
    ),
    ("distilbert", "sequence_classification"): _templates(("pre_classifier.*", f"{POOLER}.dense.*")),
    ("modernbert", "sequence_classification"): MODERNBERT_HEAD,
    ("modernbert", "token_classification"): MODERNBERT_HEAD,
    ("modernbert", "question_answering"): (*MODERNBERT_HEAD, *_templates(("classifier.*", "qa_outputs.*"))),
}
"""What stands in a task's model under other names; these go before the family's."""

ENCODER_ALONE: dict[ModelType, tuple[str, str]] = {
    "bert": (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
    "roberta": (r"^(embeddings|encoder|pooler)\.", r"roberta.\1."),
    "distilbert": (r"^(embeddings|transformer)\.", r"distilbert.\1."),
    "mosaic_bert": (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
    "modernbert": (r"^(embeddings|layers|final_norm)\.", r"model.\1."),
}
"""Where a file holds the encoder alone its names lack their first word: what to replace, and by what."""


def to_family(tensors: Mapping[str, Tensor], model_type: ModelType, task: Task | None = None) -> dict[str, Tensor]:
    """Rename our weights to the family's names, joining what is one there; names without a template stay."""
    templates = _templates_of(model_type, task)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for template in templates:
            words = _words(template.ours[0], name)
            if words is not None:
                parts = [tensors[_filled(ours, words)] for ours in template.ours]
                renamed[_filled(template.theirs, words)] = torch.cat(parts) if len(parts) > 1 else tensor
                break
        else:
            if not any(_words(ours, name) for template in templates for ours in template.ours[1:]):
                renamed[name] = tensor
    return renamed


def from_family(tensors: Mapping[str, Tensor], model_type: ModelType, task: Task | None = None) -> dict[str, Tensor]:
    """Rename the family's weights to our names; names without a template, and what cannot be cut, stay."""
    templates = _templates_of(model_type, task)
    pattern, replacement = ENCODER_ALONE[model_type]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        renamed.update(_ours(re.sub(pattern, replacement, name), tensor, templates))
    return renamed


def _ours(name: str, tensor: Tensor, templates: tuple[Template, ...]) -> Iterator[tuple[str, Tensor]]:
    for template in templates:
        words = _words(template.theirs, name)
        if words is None:
            continue
        count = len(template.ours)
        if count == 1:
            yield _filled(template.ours[0], words), tensor
            return
        if tensor.dim() and len(tensor) and len(tensor) % count == 0:
            yield from zip((_filled(ours, words) for ours in template.ours), tensor.chunk(count), strict=True)
            return
    yield name, tensor


def _templates_of(model_type: ModelType, task: Task | None) -> tuple[Template, ...]:
    return (() if task is None else TASK_TEMPLATES.get((model_type, task), ())) + TEMPLATES[model_type]


def _words(template: str, name: str) -> tuple[str, ...] | None:
    """Return what the stars of a template stand for in a name; None if the name is another."""
    found = _expression(template).fullmatch(name)
    return None if found is None else found.groups()


@functools.cache
def _expression(template: str) -> re.Pattern[str]:
    escaped = re.escape(template)
    if escaped.endswith(r"\*"):
        escaped = escaped.removesuffix(r"\*") + "(.+)"
    return re.compile(escaped.replace(r"\*", r"([^.]+)"))


def _filled(template: str, words: tuple[str, ...]) -> str:
    for word in words:
        template = template.replace("*", word, 1)
    return template
