"""Manifests for KubeRay from one file of values, and their check against the schemas of a cluster."""
