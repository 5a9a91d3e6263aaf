"""What tests register, train on and read: made, never stored."""
