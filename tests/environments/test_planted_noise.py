"""The choice of the rows that become noise, and their marks."""

import pytest

from boost_trl.environments.planted_noise import NOISE_KINDS, check_noise, plant_noise


def planted(kind="bot", share=0.6, seed=0, n=20):
    rows = [{"id": number} for number in range(n)]
    plant_noise(rows, kind, share, seed, lambda row, rng: (f"{kind}!", {"id": row["id"], "drawn": rng.random()}))
    return rows


def test_a_share_of_the_rows_is_replaced_in_place_and_marked():
    rows = planted()
    assert [row["id"] for row in rows] == list(range(20))
    noisy = [row for row in rows if "drawn" in row]
    assert len(noisy) == 12 and all(row["is_noise"] and row["noise_kind"] == "bot!" for row in noisy)
    assert all(row == {"id": row["id"]} for row in rows if "drawn" not in row)
    assert len({row["drawn"] for row in noisy}) == 12  # each row has random numbers of its own
    assert planted(share=0.0) == [{"id": number} for number in range(20)]
    assert all("drawn" in row for row in planted(share=1.0))


def test_the_seed_alone_chooses_the_rows_and_the_kind_what_they_become():
    def where(rows):
        return [row["id"] for row in rows if "drawn" in row]

    assert planted() == planted()
    assert where(planted("stale")) == where(planted("bot")) != where(planted("bot", seed=1))
    assert planted("stale")[where(planted())[0]]["drawn"] != planted("bot")[where(planted())[0]]["drawn"]


def test_bad_arguments():
    for kind in NOISE_KINDS:
        check_noise(kind, 0.0)
        check_noise(kind, 1.0)
    with pytest.raises(ValueError, match="`kind` must be one of diverse, stale, bot, weak, got 'loud'"):
        check_noise("loud", 0.5)
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="`share` must be between 0 and 1"):
            check_noise("bot", share)
