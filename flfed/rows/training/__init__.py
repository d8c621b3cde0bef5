"""How a site trains and scores: pure functions of model, arrays, encoded rows, plan and seed."""
