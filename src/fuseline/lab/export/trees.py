"""Boosted trees as one ONNX node. Dimensions: as in fuseline.lab.stacked.trees."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from fuseline.lab.export.nodes import ML
from fuseline.lab.stacked.trees import PLACEHOLDER, Trees

ML_OPSET = 3


def plant(proto: onnx.ModelProto, trees: Trees) -> None:
    """Put the trees where the exporter was given a stand-in for them.

    A TreeEnsembleRegressor of BRANCH_LEQ nodes: x ≤ threshold goes the true way, and NaN where
    `nodes_missing_value_tracks_true` says so. The constant is added behind it.
    """
    domain, _, kind = PLACEHOLDER.partition("::")
    places = [node for node in proto.graph.node if (node.domain, node.op_type) == (domain, kind)]
    assert len(places) == 1, f"{len(places)} stand-ins for trees in the graph"
    node = places[0]
    node.domain, node.op_type = ML, "TreeEnsembleRegressor"
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes(trees).items())
    kept = [o for o in proto.opset_import if o.domain not in (domain, ML)]
    del proto.opset_import[:]
    proto.opset_import.extend([*kept, helper.make_opsetid(ML, ML_OPSET)])


def attributes(trees: Trees) -> dict[str, Any]:
    """Of the node; a tree's nodes are numbered from its root, which comes first."""
    root_T, output_T = trees.root_T.numpy(), trees.output_T.numpy()
    left_N, right_N = trees.left_N.numpy(), trees.right_N.numpy()
    here_N = np.arange(len(left_N))
    tree_N = np.searchsorted(root_T, here_N, side="right") - 1
    node_N, leaf_N = here_N - root_T[tree_N], left_N == here_N
    leaves = np.flatnonzero(leaf_N)
    return {
        "nodes_treeids": tree_N.tolist(),
        "nodes_nodeids": node_N.tolist(),
        "nodes_featureids": trees.feature_N.tolist(),
        "nodes_modes": np.where(leaf_N, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": trees.threshold_N.tolist(),
        "nodes_truenodeids": np.where(leaf_N, 0, left_N - root_T[tree_N]).tolist(),
        "nodes_falsenodeids": np.where(leaf_N, 0, right_N - root_T[tree_N]).tolist(),
        "nodes_missing_value_tracks_true": trees.missing_left_N.long().tolist(),
        "target_treeids": tree_N[leaves].tolist(),
        "target_nodeids": node_N[leaves].tolist(),
        "target_ids": output_T[tree_N[leaves]].tolist(),
        "target_weights": trees.value_N[leaves].tolist(),
        "n_targets": len(trees.base_K),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
