import json

import pytest

from boost_trl.environments.synthetic_file import SyntheticFile


@pytest.mark.parametrize("old", ["SelfPlayRules", "TwentyQuestionsRules"])
def test_older_files_of_a_built_in_environment_are_known(tmp_path, old):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')
    (tmp_path / "rows.jsonl.settings.json").write_text(json.dumps({"rules": [old, 0.5]}))
    file = SyntheticFile(path, {"rules": ["twenty_questions", 0.5]}, 1, 1, "RulesOfToday")
    assert file.rows == [{"a": 1}]
    with pytest.raises(ValueError, match="rows.jsonl holds rows of other settings"):
        SyntheticFile(path, {"rules": ["webshop", 0.5]}, 1, 1, "RulesOfToday")
