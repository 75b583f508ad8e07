"""The README.md of a written deployment: the commands, in order, with its own names in them."""

from __future__ import annotations

from fuseline.deploy.plan import Plan


def guide(plan: Plan) -> str:
    image = plan.image.split("@")[0]
    measured = plan.measured
    place = f" -n {plan.namespace}" if plan.namespace else ""
    models = "\n".join(
        f"- `{m.package.name}` version `{m.package.version}`, {m.package.bytes:,} bytes" for m in plan.models
    )
    namespace = "kubectl apply -f kubernetes/namespace.yaml\n" if plan.keys and plan.namespace else ""
    keys = (
        f"""{namespace}printf %s "$(fuseline keys add prometheus -f keys.json)" > scrape.txt
fuseline keys add CALLER -f keys.json
kubectl create secret generic {plan.name}-keys --from-file=keys=keys.json{place}
kubectl create secret generic {plan.name}-scrape --from-file=key=scrape.txt{place}   # for servicemonitor.yaml
"""
        if plan.keys
        else ""
    )
    header = ' -H "Authorization: Bearer KEY"' if plan.keys else ""
    return f"""\
# {plan.name}

Written by `fuseline deploy`. Holds

{models}

```sh
docker build -t {image} image/        # installs, and verifies every package's sha256
docker run --rm --read-only --tmpfs /tmp --cap-drop ALL -p 8080:8080 {image}
docker push {image}                   # under your registry's name: see kubernetes/kustomization.yaml
{keys}kubectl apply -k kubernetes/
kubectl rollout status deployment/{plan.name}{place}
kubectl port-forward service/{plan.name} 8080:80{place}
curl -s localhost:8080/readyz
curl -s{header} localhost:8080/v1/models
```

With KServe, in the place of `-k kubernetes/`:
`kubectl apply{place} -f kubernetes/serviceaccount.yaml -f kserve/inferenceservice.yaml`.

Every number in the manifests has its reason in the comments at the file's head. They rest on what was measured where
this was written, with {measured.cores:g} threads: {measured.load_seconds:.1f} s from start to the first answer, and
{measured.batch_rows} of the largest rows in {measured.batch_seconds:.2f} s. Measure on your nodes before you trust the
autoscaler's target.
"""
