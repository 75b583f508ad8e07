"""Regression trees and their sum, as scikit-learn fitted them, in torch.

Dimensions: B batch, F features, S splits by category, V values of a category, X = F + S columns, T trees, N nodes of
all trees, K outputs.

The graph of a package runs the same trees as one ONNX node (see fuseline.lab.export.trees); this is the other side of
the parity check, and what a run is evaluated by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Arrays = Mapping[str, np.ndarray]
PLACEHOLDER = "fuseline::BoostedTrees"
"""stands for the trees while torch exports a graph"""


class Trees(nn.Module):
    """Σ over trees of the leaf that a row falls in, and a constant, for each of K outputs.

    A leaf points to itself, so that every row may take as many steps as the deepest tree has. A split by category
    reads a column of its own, made from the category by table: 0 goes left, 1 goes right, absent included.
    """

    feature_N: Tensor
    threshold_N: Tensor
    left_N: Tensor
    right_N: Tensor
    missing_left_N: Tensor
    value_N: Tensor
    root_T: Tensor
    output_T: Tensor
    category_S: Tensor
    right_SV: Tensor

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        for name in ("feature_N", "left_N", "right_N", "root_T", "output_T", "category_S"):
            # Not persistent: a package holds the trees as a node of its graph, not a second time as weights.
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.int64), persistent=False)
        for name in ("threshold_N", "value_N", "right_SV"):
            self.register_buffer(name, torch.tensor(arrays[name], dtype=torch.float32), persistent=False)
        left_N = torch.tensor(arrays["missing_left_N"], dtype=torch.bool)
        self.register_buffer("missing_left_N", left_N, persistent=False)
        self.base_K = nn.Parameter(torch.tensor(arrays["base_K"], dtype=torch.float32), requires_grad=False)
        self.depth = _depth(arrays)

    def columns(self, features_BF: Tensor) -> Tensor:
        """What the trees read (B, X): the features, and a column a split by category."""
        splits, values = self.right_SV.shape
        if not splits:
            return features_BF
        code_BS = features_BF[:, self.category_S]
        code_BS = torch.where(torch.isnan(code_BS), float(values - 1), code_BS).long()
        first_S = torch.arange(splits, device=code_BS.device) * values
        return torch.cat([features_BF, self.right_SV.flatten()[code_BS + first_S]], dim=1)

    def forward(self, features_BF: Tensor) -> Tensor:
        """(B, K). `features_BF` holds NaN where a value is missing; categories come first, as whole numbers."""
        columns_BX = self.columns(features_BF)
        if torch.compiler.is_exporting():
            out: Tensor = torch.onnx.ops.symbolic(
                PLACEHOLDER,
                [columns_BX],
                dtype=torch.float32,
                shape=(columns_BX.shape[0], self.base_K.shape[0]),
            )
            return out + self.base_K
        leaf_BT = self._walk(columns_BX)[0]
        sum_BK = torch.zeros(len(leaf_BT), len(self.base_K), dtype=torch.float64, device=leaf_BT.device)
        sum_BK = sum_BK.index_add(1, self.output_T, self.value_N[leaf_BT].double())
        return sum_BK.float() + self.base_K

    def margin(self, features_BF: Tensor, computed_F: Tensor) -> Tensor:
        """How near a row comes to falling otherwise (B,): the least distance of a computed feature from a threshold
        that it is held against. Infinite where none is."""
        padded_X = torch.cat([computed_F, torch.zeros(len(self.category_S), dtype=torch.bool)])
        return self._walk(self.columns(features_BF), padded_X)[1]

    def _walk(self, columns_BX: Tensor, computed_X: Tensor | None = None) -> tuple[Tensor, Tensor]:
        at_BT = self.root_T.expand(len(columns_BX), -1)
        margin_B = columns_BX.new_full((len(columns_BX),), float("inf"))
        for _ in range(self.depth):
            feature_BT = self.feature_N[at_BT]
            x_BT = columns_BX.gather(1, feature_BT)
            threshold_BT = self.threshold_N[at_BT]
            if computed_X is not None:
                gap_BT = (x_BT - threshold_BT).abs()
                real_BT = computed_X[feature_BT] & (self.left_N[at_BT] != at_BT) & ~gap_BT.isnan()
                margin_B = torch.minimum(margin_B, gap_BT.masked_fill(~real_BT, float("inf")).amin(dim=1))
            left_BT = torch.where(torch.isnan(x_BT), self.missing_left_N[at_BT], x_BT <= threshold_BT)
            at_BT = torch.where(left_BT, self.left_N[at_BT], self.right_N[at_BT])
        return at_BT, margin_B


def _depth(arrays: Arrays) -> int:
    """Steps from a root to the deepest leaf."""
    at, depth = np.unique(arrays["root_T"]), 0
    while True:
        inner = at[arrays["left_N"][at] != at]
        if not len(inner):
            return depth
        at = np.unique(np.concatenate([arrays["left_N"][inner], arrays["right_N"][inner]]))
        depth += 1


class Forest:
    """Collects trees of scikit-learn's histogram boosting, one ensemble after the other, each for its outputs.

    `categories`: how many features, the first ones, are categories; `values`: V - 1, the most values one of them has.
    `features`: F. Of scikit-learn's private parts this reads `TreePredictor.nodes` and `raw_left_cat_bitsets`; who
    collects compares the sum with scikit-learn's own (see fuseline.lab.stacked.boost).
    """

    def __init__(self, outputs: int, *, features: int, categories: int, values: int) -> None:
        self.features, self.categories, self.values = features, categories, values
        self.base_K = np.zeros(outputs)
        self.nodes: list[tuple[int, float, int, int, bool, float]] = []
        self.roots: list[int] = []
        self.outputs: list[int] = []
        self.splits: dict[bytes, int] = {}
        self.tables: list[np.ndarray] = []
        self.columns: list[int] = []

    def add(self, predictor: Any, output: int) -> None:
        """One tree. A tree of one leaf is a constant."""
        nodes, start = predictor.nodes, len(self.nodes)
        if len(nodes) == 1:
            self.base_K[output] += float(nodes["value"][0])
            return
        self.roots.append(start)
        self.outputs.append(output)
        for i, node in enumerate(nodes):
            here = start + i
            if node["is_leaf"]:
                self.nodes.append((0, 0.0, here, here, False, float(node["value"])))
                continue
            feature, missing_left = int(node["feature_idx"]), bool(node["missing_go_to_left"])
            threshold = float(_below(float(node["num_threshold"])))
            if node["is_categorical"]:
                bits = predictor.raw_left_cat_bitsets[node["bitset_idx"]]
                feature, threshold = self._split(feature, bits, missing_left), 0.5
            left, right = start + int(node["left"]), start + int(node["right"])
            self.nodes.append((feature, threshold, left, right, missing_left, 0.0))

    def _split(self, feature: int, bits: np.ndarray, missing_left: bool) -> int:
        """The column of a split by category: made once for all nodes that split alike."""
        left_V = np.array([bool(bits[v // 32] >> np.uint32(v % 32) & 1) for v in range(self.values)] + [missing_left])
        key = bytes([missing_left]) + feature.to_bytes(4, "little") + left_V.tobytes()
        if key not in self.splits:
            self.splits[key] = len(self.tables)
            self.tables.append((~left_V).astype(np.float32))
            self.columns.append(feature)
        return self.features + self.splits[key]

    def arrays(self) -> dict[str, np.ndarray]:
        """What `Trees` is made of. Without any tree: one that always adds nothing, since the ONNX node needs one."""
        nodes = self.nodes or [(0, 0.0, 1, 2, True, 0.0), (0, 0.0, 1, 1, False, 0.0), (0, 0.0, 2, 2, False, 0.0)]
        feature, threshold, left, right, missing_left, value = (np.array(column) for column in zip(*nodes, strict=True))
        return {
            "feature_N": feature.astype(np.int64),
            "threshold_N": threshold.astype(np.float32),
            "left_N": left.astype(np.int64),
            "right_N": right.astype(np.int64),
            "missing_left_N": missing_left.astype(bool),
            "value_N": value.astype(np.float32),
            "root_T": np.array(self.roots or [0], dtype=np.int64),
            "output_T": np.array(self.outputs or [0], dtype=np.int64),
            "category_S": np.array(self.columns, dtype=np.int64),
            "right_SV": np.array(self.tables, dtype=np.float32).reshape(-1, self.values + 1),
            "base_K": self.base_K.astype(np.float32),
        }


def _below(threshold: float) -> np.float32:
    """The greatest 32-bit number not above a 64-bit one: a 32-bit x is below the one where it is below the other."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    return np.float32(np.nextafter(near, np.float32(-np.inf))) if float(near) > threshold else near
