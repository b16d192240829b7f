from boost_trl.environments.twenty_questions.small_world import small_world


def test_small_worlds():
    world, same, other = small_world(0), small_world(0), small_world(1)
    assert len(world.categories) == 12 and len(world.items) == 192 and len(world.questions) == 8
    codebook = world.table.reshape(12, 16, 8)
    assert (codebook == codebook[:1]).all() and (codebook[0].sum(axis=0) == 8).all()
    assert (world.table == same.table).all() and (world.table != other.table).any()
    assert world.max_questions == 12 and small_world(0, max_questions=7).max_questions == 7
