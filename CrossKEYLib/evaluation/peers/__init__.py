"""Rigid registration by other methods, for comparison; `registry` names them all."""
