"""What the bare interpreter runs (`python -I -S`): the other files lie behind the standard library, and are compiled already."""

import sys

sys.path.append(sys.argv[1])
from edge_runtime.security.door.serving import main

if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
