"""`fuseline export`: a package for another program, without fuseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

NAME = "export"


def command(
    model: Annotated[Path, typer.Argument(help="a package NAME.fuse, or a run's folder")],
    to: Annotated[str, typer.Option("--to", help="onnx or openvino")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a new or empty folder")],
    embed: Annotated[
        bool,
        typer.Option(
            "--embed",
            help="onnx: also write model-embedded.onnx, which takes texts and files of pictures and sounds where ONNX "
            "Runtime Extensions read them as the package does (extra: compress)",
        ),
    ] = False,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="onnx: weights in a file of their own, as above 1.5 GB anyhow")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="a table whose rows are compared, too; they also decide what is embedded")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="first rows of --data that are taken")] = 64,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier export in the folder")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="of the comparison; default: all there are")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Write a package as files that plain ONNX Runtime or plain OpenVINO runs: in C++, C#, Java, a browser, on phones,
    in OpenVINO Model Server.

    - `--to onnx`: model.onnx with its weights inside
    - `--to openvino`: model.xml and model.bin

    Beside the model lie `signature.json` (every input and output, how to make the inputs from raw cells, the labels,
    how to read the answer), `example.json` (made rows and the outputs to expect, for a port's own test), the tokenizers
    and a `README.md` whose Python runs as it stands. No row of your table is written.

    Before anything is written, the exported file answers batches of 1, 2, 3, 7 and 64 rows, texts and sounds from the
    shortest to the longest, and each input absent in turn; if one answer is further from the package's than the
    recipe's evaluation.tolerance, the export is refused. The figures are in `parity.json`.

    Example: `fuseline export runs/NAME/model.fuse --to onnx --embed -o exported`
    """
    from fuseline.lab.export.standalone import export_to, said_sizes
    from fuseline.progress import voice

    done = export_to(
        model,
        to,
        out,
        embed=embed,
        external_data=external_data,
        data=data,
        rows=rows,
        force=force,
        threads=threads,
        voice=voice("quiet" if quiet else "auto"),
    )
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"written to {done.folder}:")
    for line in said_sizes(done.files):
        say(f"  {line}")
    parity = done.parity
    sizes = ", ".join(map(str, parity["batch_sizes"]))
    say(
        f"checked: {parity['cases']} batches of {sizes} rows, {parity['rows']} rows in all; at most "
        f"{parity['max_abs_difference']:.2g} from the package ({parity['worst_case']}), allowed {parity['tolerance']:g}"
    )
    for name, length in parity["lengths"].items():
        say(f"  {name}: lengths {', '.join(map(str, length))}")
    for note in done.notes:
        say(note)
    if done.embedded is not None:
        for name, figures in done.embedded["measured"].items():
            say(f"embedded: {name}: {figures['said']}")
        for name, texts in done.embedded["notes"].items():
            for text in texts:
                say(f"  {name}: {text}")
        for name, why in done.embedded["left_out"].items():
            say(f"left out: {name}: {why}")
