"""What a registration is in the scene: transforms, verdict, nodes, views, files."""
