from boost_trl.cache_folder import cache_folder


def test_one_variable_moves_everything_and_asking_makes_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    assert cache_folder("webshop") == tmp_path / "webshop"
    monkeypatch.delenv("BOOST_TRL_CACHE")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    assert cache_folder("webshop") == tmp_path / "assets" / "boost_trl" / "webshop"
    assert not (tmp_path / "assets").exists()
