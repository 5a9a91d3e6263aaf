"""Synthetic intraoperative ultrasound from MRI: anatomy, probe, style, simulator."""
