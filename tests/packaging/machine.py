"""A machine to install on: a root folder, and a Python whose pip and venv work at once."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """A root folder, and a Python whose pip and venv work at once; what it makes says which release it is, or that it does not start."""

    def __init__(self, folder: Path) -> None:
        self.root, self.tools, self.python = folder / "root", folder / "bin", folder / "python3"
        self.opt = self.root / "opt/lineside"
        self.version = folder / "version"
        self.version.write_text("1")
        self.python.write_text(
            '#!/bin/sh\nself=$(dirname "$0")\ncase "$*" in\n'
            '*"-m venv"*) for release; do :; done; mkdir -p "$release/bin"; cp "$0" "$release/bin/python"\n'
            f'  printf "#!/bin/sh\\necho $(cat {self.version})\\n" > "$release/bin/lineside"; chmod +x "$release/bin/lineside";;\n'
            f'*"pip"*) echo "$@" >> {folder}/pip;;\n'
            f'*"print(sys.version_info"*) echo {sys.version_info.minor};;\n'
            f'*cv2*) grep -q broken {self.version} && {{ echo "ImportError: libGL.so.1" >&2; exit 1; }}\nesac\nexit 0\n'
        )
        self.python.chmod(0o755)
        self.tools.mkdir()
        tools = "bash dirname basename install sed mkdir cp chmod sh cat env date ln mv rm grep readlink"
        for tool in tools.split():
            (self.tools / tool).symlink_to(str(shutil.which(tool)))

    def install(self, *arguments: str, umask: str = "022") -> subprocess.CompletedProcess[str]:
        script = f'umask {umask}; exec bash {ROOT}/deploy/install.sh --prefix {self.root} --python {self.python} "$@"'
        command = [self.tools / "bash", "-c", script, "-", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": str(self.tools)}, check=False)

    def upgrade(self, version: str, *arguments: str) -> None:
        self.version.write_text(version)
        done = self.install(*arguments)
        assert done.returncode == 0, done.stderr

    def runs(self) -> str:
        return subprocess.run([self.opt / "venv/bin/lineside"], capture_output=True, text=True, check=True).stdout.strip()

    def releases(self) -> int:
        return len(list((self.opt / "releases").iterdir()))
