import torch

from fourd.motion.uniform_adam import UniformAdam


def test_numbers_move_in_proportion_to_their_gradients() -> None:
    moved = torch.nn.Parameter(torch.zeros(3))
    optimizer = UniformAdam([{"params": [moved], "lr": 0.1}])
    moved.grad = torch.tensor([4.0, -2.0, 1e-6])
    optimizer.step()
    # The largest moves by the rate, as with Adam; what hardly matters hardly moves.
    assert torch.allclose(moved.detach(), torch.tensor([-0.1, 0.05, -2.5e-8]), atol=1e-6)


def test_it_finds_the_bottom_of_a_bowl_and_goes_on_from_its_state() -> None:
    target = torch.tensor([1.0, -0.5])
    found = []
    for stops in (False, True):
        value = torch.nn.Parameter(torch.zeros(2))
        optimizer = UniformAdam([value], lr=0.05)
        for step in range(200):
            if stops and step == 50:
                state = optimizer.state_dict()
                optimizer = UniformAdam([value], lr=0.05)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            (value - target).square().sum().backward()
            optimizer.step()
        found.append(value.detach().clone())
    assert torch.allclose(found[0], target, atol=0.02)
    assert torch.equal(found[0], found[1])
