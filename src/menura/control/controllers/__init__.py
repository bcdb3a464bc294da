"""Controllers: what a robot is told now, of the chunks a policy answered so far. One module each, torch-free."""
