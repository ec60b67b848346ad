"""The methods that can be taught, one file each; `table.METHODS` lists them."""
