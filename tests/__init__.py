"""Tests: unit/ mirrors the package, numerics/ has references, integration/ runs programs, architecture/ the house."""
