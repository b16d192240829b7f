from boost_trl.environments.twenty_questions.chat_simulator import ChatAnswerer


def test_a_chat_model_is_prompted_and_read():
    conversations = []

    def policy(batch):
        conversations.extend(batch)
        return [
            {"Is it alive?": " **Yes**, it is.", "Is it red?": "Nobody knows."}.get(c[-1]["content"], "no")
            for c in batch
        ]

    answerer = ChatAnswerer(policy)
    assert [answerer(q, "cat") for q in ("Is it alive?", "Is it red?", "Is it big?", "Is it alive?")] == [
        "Yes.",
        "No.",
        "No.",
        "Yes.",
    ]
    assert len(conversations) == 3  # the repeated question was remembered
    system, user = conversations[0]
    assert system["role"] == "system" and "exactly 'Yes.' or 'No.'" in system["content"] and "cat" in system["content"]
    assert user == {"role": "user", "content": "Is it alive?"}
