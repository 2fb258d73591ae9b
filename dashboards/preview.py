"""Draw the dashboards as PNG, roughly as Grafana would show them, from live answers of a Prometheus.

    python dashboards/preview.py FOLDER                          the story of story/: thirty hours of a leak
    python dashboards/preview.py FOLDER --prometheus URL         what that Prometheus has, now
    python dashboards/preview.py FOLDER --set application=shop   with a variable chosen; the default is All

Needs prometheus and chromium-headless-shell (Debian's packages), or another build of chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asking import prometheus as server
from asking.board import Board, Span
from drawing.page import WIDTH, page
from story import samples

HERE = Path(__file__).resolve().parent
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def screenshot(html: str, height: int, picture: Path) -> None:
    """Let chromium draw a page. Ends the program with the line to type where it is missing."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if not chromium:
        raise SystemExit("chromium is missing: apt install chromium-headless-shell")
    with tempfile.TemporaryDirectory(prefix="pgleak-preview-") as folder:
        source = Path(folder, "page.html")
        source.write_text(html, encoding="utf-8")
        size = [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}", f"--screenshot={picture}"]
        command = [chromium, *_FLAGS, *size, source.as_uri()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)


def draw(
    prometheus: server.Prometheus, span: Span, chosen: dict[str, tuple[str, ...]], folder: Path, *, top: bool
) -> None:
    """Write one picture for each dashboard, or of its top alone."""
    boards = {path: json.loads(path.read_text()) for path in sorted(HERE.glob("pgleak-*.json"))}
    titles = [board["title"] for board in boards.values()]
    for path, board in boards.items():
        html, height = page(Board(board, chosen, span), prometheus, titles, top=top)
        picture = folder / f"{path.stem}.png"
        screenshot(html, height, picture)
        sys.stdout.write(f"{picture}  {picture.stat().st_size // 1024} KB\n")


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--prometheus", metavar="URL", help="ask this one and not the story's")
    parser.add_argument("--scrape-interval", type=float, default=15, help="of that Prometheus, in seconds (default 15)")
    parser.add_argument("--hours", type=float, default=24, help="the time shown (default 24)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="choose a variable's value")
    parser.add_argument("--top", action="store_true", help="only what stands above the first row with a title")
    options = parser.parse_args()
    chosen: dict[str, tuple[str, ...]] = {"application": ("shop",)}
    chosen |= {name: tuple(value.split(",")) for name, _, value in (one.partition("=") for one in options.set)}
    options.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if options.prometheus:
            prometheus, end, every = (
                server.Prometheus(options.prometheus.rstrip("/")),
                time.time(),
                options.scrape_interval,
            )
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgleak-story-")))
            server.backfill(folder, samples.lines())
            prometheus, end, every = stack.enter_context(server.running(folder)), samples.END, samples.STEP
        draw(prometheus, Span(end - options.hours * 3600, end, every), chosen, options.folder, top=options.top)


if __name__ == "__main__":
    main()
