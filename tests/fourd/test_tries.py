import torch

from fourd.tries import Tries


def test_a_frame_goes_on_with_the_best_of_its_tries() -> None:
    parameters = [torch.nn.Parameter(torch.full((3,), 1.0)), torch.nn.Parameter(torch.full((2, 2), 2.0))]
    tries = Tries()
    assert tries.best == 0
    tries.begin(parameters)
    for value, loss in ((5.0, 0.4), (6.0, 0.3)):
        assert torch.equal(parameters[0], torch.full((3,), 1.0)), "each begins where the first did"
        with torch.no_grad():
            parameters[0].fill_(value)
            parameters[1].fill_(-value)
        tries.begin_again(parameters, loss)
    resumed = Tries()
    resumed.load_state_dict(tries.state_dict())
    with torch.no_grad():
        parameters[0].fill_(7.0)
    resumed.end(parameters, 0.35)
    assert resumed.best == 1
    assert torch.equal(parameters[0], torch.full((3,), 6.0))
    assert torch.equal(parameters[1], torch.full((2, 2), -6.0))


def test_of_equal_tries_the_first_is_taken() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    tries = Tries()
    tries.begin(parameters)
    tries.begin_again(parameters, 0.5)
    tries.end(parameters, 0.5)
    assert tries.best == 0
