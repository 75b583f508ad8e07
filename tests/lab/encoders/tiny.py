"""Tiny local model folders, as `save_pretrained` writes them: random weights, a few kilobytes, made in no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fuseline.modalities.audio import Audio, AudioConfig
from fuseline.modalities.image import Image, ImageConfig
from fuseline.modalities.text import Text, TextConfig
from fuseline.modalities.video import Video, VideoConfig

WORDS = (
    "the",
    "a",
    "patient",
    "has",
    "no",
    "fever",
    "cough",
    "chest",
    "clear",
    "pain",
    "left",
    "right",
    "lung",
    "shows",
)
WORDS += ("mild", "opacity", "and", ".", ",", "?")

TEXT = ("bert", "roberta", "distilbert", "mpnet", "deberta", "t5")
IMAGE = ("resnet", "vit", "convnext", "dinov2", "swin", "clip")
AUDIO = ("wav2vec2", "wav2vec2-layer", "hubert", "wavlm", "whisper", "ast")
VIDEO = ("videomae", "timesformer", "vivit")
KINDS = TEXT + IMAGE + AUDIO + VIDEO

_BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def _raw(**more: Any) -> dict[str, Any]:
    # Receptive field 28 samples, one token every 8.
    convs = {"conv_dim": (16, 16, 16), "conv_kernel": (4, 3, 6), "conv_stride": (2, 2, 2), "conv_bias": False}
    extra = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 3}
    return {**_BODY, **convs, **extra, "vocab_size": 20, **more}


def config(kind: str) -> Any:
    """The library's config behind each kind."""
    vocab = 5 + len(WORDS)
    match kind:
        case "bert":
            return t.BertConfig(vocab_size=vocab, max_position_embeddings=64, **_BODY)
        case "roberta":
            # Its pad id is 1 and its positions start after that.
            return t.RobertaConfig(vocab_size=vocab, max_position_embeddings=66, pad_token_id=1, **_BODY)
        case "distilbert":
            return t.DistilBertConfig(vocab_size=vocab, dim=32, hidden_dim=48, n_layers=2, n_heads=2)
        case "mpnet":
            return t.MPNetConfig(vocab_size=vocab, max_position_embeddings=66, **_BODY)
        case "deberta":
            relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
            return t.DebertaV2Config(vocab_size=vocab, max_position_embeddings=64, **relative, **_BODY)
        case "t5":
            return t.T5Config(
                vocab_size=vocab, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
            )
        case "resnet":
            return t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
        case "vit":
            return t.ViTConfig(image_size=32, patch_size=8, **_BODY)
        case "convnext":
            return t.ConvNextConfig(hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
        case "dinov2":
            # Pictures of 42 at serving, weights for 56: its positions are interpolated, as in the published models.
            return t.Dinov2Config(image_size=56, patch_size=14, **_BODY)
        case "swin":
            return t.SwinConfig(
                image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
            )
        case "clip":
            vision = {**_BODY, "image_size": 32, "patch_size": 8}
            return t.CLIPConfig(vision_config=vision, text_config={**_BODY, "vocab_size": vocab}, projection_dim=8)
        case "wav2vec2":
            return t.Wav2Vec2Config(**_raw(feat_extract_norm="group"))
        case "wav2vec2-layer":
            return t.Wav2Vec2Config(**_raw(feat_extract_norm="layer", do_stable_layer_norm=True))
        case "hubert":
            return t.HubertConfig(**_raw(feat_extract_norm="group"))
        case "wavlm":
            return t.WavLMConfig(**_raw(feat_extract_norm="group", num_buckets=16, max_bucket_distance=32))
        case "whisper":
            heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
            layers = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
            ids = {
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "decoder_start_token_id": 1,
                "vocab_size": 20,
            }
            return t.WhisperConfig(d_model=32, num_mel_bins=16, max_source_positions=50, **heads, **layers, **ids)
        case "ast":
            return t.ASTConfig(num_mel_bins=32, max_length=64, frequency_stride=10, time_stride=10, **_BODY)
        case "videomae":
            return t.VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, tubelet_size=2, **_BODY)
        case "timesformer":
            return t.TimesformerConfig(image_size=32, patch_size=16, num_frames=4, **_BODY)
        case "vivit":
            return t.VivitConfig(image_size=32, tubelet_size=[2, 16, 16], num_frames=4, **_BODY)
    raise ValueError(kind)


def _image_processor(size: int, **more: Any) -> dict[str, Any]:
    return {
        "size": {"height": size, "width": size},
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.3],
        **more,
    }


def _preprocessor(kind: str) -> dict[str, Any] | None:
    match kind:
        case "resnet" | "convnext":
            return _image_processor(64)
        case "vit" | "swin" | "clip" | "videomae" | "timesformer" | "vivit":
            return _image_processor(32)
        case "dinov2":
            crop = {"crop_size": {"height": 42, "width": 42}, "do_center_crop": True}
            return {**_image_processor(0, **crop), "size": {"shortest_edge": 48}}
        case "wav2vec2" | "wav2vec2-layer" | "hubert" | "wavlm":
            return t.Wav2Vec2FeatureExtractor().to_dict()
        case "whisper":
            # One second: 100 frames, 50 tokens.
            return {"feature_size": 16, "chunk_length": 1, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400}
        case "ast":
            return {"num_mel_bins": 32, "max_length": 64, "sampling_rate": 16000, "mean": -4.0, "std": 3.5}
    return None


def _tokenizer(kind: str) -> t.PreTrainedTokenizerFast:
    special = ["[CLS]", "[PAD]"] if kind in ("roberta", "mpnet") else ["[PAD]", "[CLS]"]
    vocab = {w: i for i, w in enumerate([*special, "[SEP]", "[UNK]", "[MASK]", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    # A fixed padding, as many published files carry: encoders must undo it.
    inner.enable_padding(length=12, pad_id=vocab["[PAD]"], pad_token="[PAD]")
    named = {f"{n}_token": f"[{n.upper()}]" for n in ("unk", "pad", "cls", "sep", "mask")}
    return t.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **named)


def make_tiny(kind: str, folder: Path) -> Path:
    """Write a model folder of `kind` (see KINDS) with safetensors weights from a fixed seed; returns `folder`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = t.AutoModel.from_config(config(kind))
        for name, parameter in model.named_parameters():
            # Fresh models have zero biases, class tokens and positions: mistakes there would not show.
            if parameter.abs().max() == 0 or name.endswith(("bias", "position_embeddings")):
                torch.nn.init.normal_(parameter, std=0.2)
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(std=0.2)
                part.running_var.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    prep = _preprocessor(kind)
    if prep is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(prep))
    if kind in TEXT:
        _tokenizer(kind).save_pretrained(folder)
    return folder


def text_modality(kind: str = "bert", max_length: int = 64) -> Text:
    """Fitted as an encoder of that kind would have it."""
    return Text(
        TextConfig(max_length=max_length), "text", Tokenizer.from_str(_tokenizer(kind).backend_tokenizer.to_str())
    )


def image_modality(size: int) -> Image:
    return Image(ImageConfig(size=size), "image")


def video_modality(size: int, frames: int) -> Video:
    return Video(VideoConfig(size=size, frames=frames), "video")


def audio_modality(sample_rate: int = 16_000) -> Audio:
    return Audio(AudioConfig(sample_rate=sample_rate), "audio")


def export_session(module: torch.nn.Module, arrays: dict[str, torch.Tensor], dynamic: dict[str, Any]) -> Any:
    """Export with torch.onnx (dynamo) and open it in onnxruntime; `run(arrays) -> (values, mask)`."""
    import warnings

    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are the export room's concern
        program = torch.onnx.export(
            module.eval(),
            args=(),
            kwargs=arrays,
            dynamo=True,
            dynamic_shapes=dynamic,
            verbose=False,
            input_names=list(arrays),
            output_names=["values", "real"],
        )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())

    def run(arrays: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        values, mask = session.run(None, {k: v.numpy() for k, v in arrays.items()})
        return torch.from_numpy(values), torch.from_numpy(mask)

    return run
