from types import SimpleNamespace

from sft_tiny import make_model

from boost_trl.models.model_fingerprint import model_fingerprint
from boost_trl.trainer.common import base_model


def test_only_the_main_process_reads_weights_which_under_fsdp_the_others_do_not_have(monkeypatch):
    record = base_model.base_model_record(make_model())
    assert record == {"name": "", "fingerprint": model_fingerprint(make_model())}
    monkeypatch.setattr(base_model, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    monkeypatch.setattr(base_model, "broadcast_object_list", lambda objects: [record])
    assert base_model.base_model_record(make_model().to("meta")) == record
