"""The planted graph is what it says."""

from pathlib import Path

import numpy as np

from rec.data.generated.graph import PlantedGraphConfig, planted_graph
from tests.support.own import prepared

PLANTED = "rec.data.generated.graph:PlantedGraph"


def test_a_planted_graph_has_users_who_follow_one_topic_of_one_modality(tmp_path: Path) -> None:
    config = PlantedGraphConfig(users=300, items=200, interactions=6000)
    graph, again = planted_graph(config), planted_graph(config)
    assert np.array_equal(graph.item_E, again.item_E)
    assert 3500 < len(graph.user_E) <= 6000
    assert (np.diff(graph.user_E) >= 0).all()
    assert len(np.unique(graph.user_E * 200 + graph.item_E)) == len(graph.user_E)
    unit = {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in graph.features.items()}
    alike = {}
    for number, name in enumerate(config.modalities):
        for follows in (True, False):
            users = np.flatnonzero((graph.followed_U == number) == follows)
            rows = [unit[name][graph.item_E[graph.user_E == user]] for user in users]
            alike[name, follows] = np.mean([(part @ part.T)[np.triu_indices(len(part), 1)].mean() for part in rows])
    assert all(alike[name, True] > alike[name, False] + 0.2 for name in config.modalities)
    data = prepared(tmp_path, {"source": PLANTED, "read": config, "split": {"protocol": "mmrec"}})
    assert data.manifest["synthetic_labels"]
    assert set(data.users["group"].to_pylist()) == {"image", "text"}
