"""K-FAC: gradients preconditioned by a Kronecker-factored curvature (Martens & Grosse 2015), before any optimizer."""
