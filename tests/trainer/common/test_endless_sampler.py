from boost_trl.trainer.common.endless_sampler import EndlessSampler


def test_an_endless_sampler_visits_every_row_once_a_pass_and_continues_where_it_was():
    sampler = EndlessSampler(5, seed=3)
    passes = [sampler.take(5) for _ in range(3)]
    assert all(sorted(rows) == list(range(5)) for rows in passes) and passes[0] != passes[1]
    whole = EndlessSampler(5, seed=3).take(13)
    assert whole == sum(passes, [])[:13]
    resumed = EndlessSampler(5, seed=3)
    resumed.position = 7
    assert resumed.take(6) == whole[7:13]
