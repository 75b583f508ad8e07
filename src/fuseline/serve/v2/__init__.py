"""The Open Inference Protocol v2 (KServe, Triton): HTTP with the binary extension, and gRPC as an extra.

Sources: the protocol at github.com/kserve/open-inference-protocol, and Triton's extensions (binary tensor data,
statistics, model configuration, model repository) at github.com/triton-inference-server/server, docs/protocol.
"""
