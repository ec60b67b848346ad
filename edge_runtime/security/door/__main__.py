"""What the bare interpreter runs (`python -I -S`): the other files lie behind the standard library, and are compiled already."""

import sys

if __name__ == "__main__":  # whoever imports all there is starts no door
    sys.path.append(sys.argv[1])
    from edge_runtime.security.door.serving import main

    main(int(sys.argv[2]), int(sys.argv[3]))
