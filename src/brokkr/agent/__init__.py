"""Program 2: claims work and drives it in one cluster."""
