"""Google's BERT vocabularies and weights, as TensorFlow checkpoints."""

from collections.abc import Iterator

from bert_pytorch.downloads.source import Download, DownloadConfig, Source, mirrored
from bert_pytorch.remote.files import RemoteFile

_UNCASED_VOCAB = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_CASED_VOCAB = "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02"
_DATA = "bert_model.ckpt.data-00000-of-00001"

# No checksums of the archives are published; those of files in them are in NVIDIA's DeepLearningExamples (BERT).
_MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "uncased_L-12_H-768_A-12": (
        "2018_10_18",
        {"vocab.txt": _UNCASED_VOCAB, _DATA: "58580dc5e0bf0ae0d2efd51d0e8272b2f808857f0a43a88aaf7549da6d7a8a84"},
    ),
    "uncased_L-24_H-1024_A-16": (
        "2018_10_18",
        {"vocab.txt": _UNCASED_VOCAB, _DATA: "bc6b3363e3be458c99ecf64b7f472d2b7c67534fd8f564c0556a678f90f4eea1"},
    ),
    "cased_L-12_H-768_A-12": (
        "2018_10_18",
        {"vocab.txt": _CASED_VOCAB, _DATA: "734d5a1b68bf98d4e9cb6b6692725d00842a1937af73902e51776905d8f760ea"},
    ),
    "cased_L-24_H-1024_A-16": (
        "2018_10_18",
        {"vocab.txt": _CASED_VOCAB, _DATA: "6ff33640f40d472f7a16af0c17b1179ca9dcc0373155fb05335b6a4dd1657ef0"},
    ),
    "multi_cased_L-12_H-768_A-12": (
        "2018_11_23",
        {
            "vocab.txt": "fe0fda7c425b48c516fc8f160d594c8022a0808447475c1a7c6d6479763f310c",
            _DATA: "55b8a2df41f69c60c5180e50a7c31b7cdf6238909390c4ddf05fbc0d37aa1ac5",
        },
    ),
    "multilingual_L-12_H-768_A-12": (
        "2018_11_03",
        {
            "vocab.txt": "87b44292b452f6c05afa49b2e488e7eedf79ea4f4c39db6f2f4b37764228ef3f",
            _DATA: "3cd83912ebeb0efe2abf35c9f1d5a515d8e80295e61c49b75c8853f756658429",
        },
    ),
    "chinese_L-12_H-768_A-12": (
        "2018_11_03",
        {
            "vocab.txt": "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
            _DATA: "756699356b78ad0ef1ca9ba6528297bcb3dd1aef5feadd31f4775d7c7fc989ba",
        },
    ),
    "wwm_uncased_L-24_H-1024_A-16": ("2019_05_30", {"vocab.txt": _UNCASED_VOCAB}),
    "wwm_cased_L-24_H-1024_A-16": ("2019_05_30", {"vocab.txt": _CASED_VOCAB}),
}
# The small ones of Turc et al. 2019; the release's own 12-layer, 768-wide one has the name of the original above.
for _layers in (2, 4, 6, 8, 10, 12):
    for _width in (128, 256, 512, 768):
        _name = f"uncased_L-{_layers}_H-{_width}_A-{_width // 64}"
        _MODELS.setdefault(_name, ("2020_02_20", {"vocab.txt": _UNCASED_VOCAB}))


class GoogleBertConfig(DownloadConfig):
    """Fetch and unpack Google's BERT models: vocab.txt, bert_config.json and a TensorFlow checkpoint."""

    models: tuple[str, ...] = ("uncased_L-12_H-768_A-12",)
    """Which ones, as in uncased_L-12_H-768_A-12: (wwm_|multi_)(un)cased, layers, width, attention heads."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        unknown = [name for name in self.models if name not in _MODELS]
        if unknown:
            yield f"--models: found {', '.join(unknown)}, wanted some of {', '.join(_MODELS)}."


def plan_google_bert(config: GoogleBertConfig) -> list[Download]:
    """Return the models' archives."""
    return [
        Download(
            RemoteFile(
                mirrored(("https://storage.googleapis.com/bert_models",), config, f"{_MODELS[name][0]}/{name}.zip"),
                f"{name}.zip",
            ),
            name,
            _MODELS[name][1],
        )
        for name in dict.fromkeys(config.models)
    ]


GOOGLE_BERT = Source(
    "google_bert",
    "Google's BERT vocabularies and weights: original, whole-word, multilingual, Chinese, small",
    "Apache 2.0",
    "0.4 GB (12 layers), 1.2 GB (24 layers)",
    "--models uncased_L-12_H-768_A-12",
    GoogleBertConfig,
    plan_google_bert,
)
