"""Properties of the operator over shapes, scales, groups and offsets that nobody thought of."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolov10_dysample.dysample import INITS, DySample, dysample

OFFSETS = st.floats(width=32) | st.sampled_from([0.0, 0.25, -0.5, 1.0, 1e9, -1e30, float("inf"), float("-inf")])


@st.composite
def calls(draw, offsets=OFFSETS):
    """A map with one value per channel, a few of its offsets drawn and the rest zero, in any layout."""
    batch, groups, height, width = (draw(st.integers(low, 4)) for low in (0, 1, 1, 1))
    channels, scale = groups * draw(st.integers(1, 3)), draw(st.integers(2, 5))
    x = torch.arange(1.0, channels + 1).view(1, -1, 1, 1).expand(batch, -1, height, width).contiguous()
    offset = torch.zeros(batch, 2 * groups, height * scale, width * scale)
    if offset.numel():
        for value in draw(st.lists(offsets, max_size=8)):
            offset.view(-1)[draw(st.integers(0, offset.numel() - 1))] = value
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    return x.contiguous(memory_format=layout), offset, scale, draw(st.sampled_from(INITS))


@settings(max_examples=300, deadline=None)
@given(calls())
def test_a_map_of_constant_channels_stays_constant_wherever_it_is_sampled(call):
    x, offset, scale, init = call
    y = dysample(x, offset, scale, init)
    assert y.shape == (*x.shape[:2], x.shape[2] * scale, x.shape[3] * scale)
    spoilt = y.isnan()
    moved_to_nowhere = torch.logical_or(*offset.isnan().chunk(2, dim=1))
    assert torch.equal(spoilt, moved_to_nowhere.repeat_interleave(x.shape[1] // moved_to_nowhere.shape[1], dim=1))
    # Anything read from outside would be the zero of the padding, another channel's number, or garbage.
    expected = x[:, :, :1, :1].expand_as(y)
    torch.testing.assert_close(y[~spoilt], expected[~spoilt], rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(calls(st.floats(-3, 3, width=32)), st.integers(0, 2**31))
def test_every_layout_and_mode_gives_the_same_numbers(call, seed):
    x, offset, scale, init = call
    x = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        inference = dysample(x.contiguous(memory_format=torch.channels_last), offset, scale, init)
    training = dysample(x, offset.clone().requires_grad_(), scale, init).detach()
    torch.testing.assert_close(inference, training, rtol=1e-4, atol=1e-4)
    assert ((training >= -1e-6) & (training <= 1 + 1e-6)).all(), "a weighted mean cannot leave the range of its numbers"


@settings(max_examples=200, deadline=None)
@given(calls(), st.data())
def test_a_nan_in_the_map_shows_at_the_same_places_on_every_path(call, data):
    x, offset, scale, init = call
    x = x.contiguous()
    if x.numel():
        x.view(-1)[data.draw(st.integers(0, x.numel() - 1))] = float("nan")
    training = dysample(x, offset.clone().requires_grad_(), scale, init).detach()
    with torch.no_grad():
        for layout in (torch.contiguous_format, torch.channels_last):
            inference = dysample(x.contiguous(memory_format=layout), offset, scale, init)
            assert torch.equal(inference.isnan(), training.isnan())


@settings(max_examples=200, deadline=None)
@given(
    st.integers(-2, 40) | st.none() | st.floats() | st.text(max_size=3),
    st.integers(-2, 12) | st.booleans() | st.text(max_size=3),
    st.sampled_from(["lp", "pl"]) | st.text(max_size=3) | st.none() | st.lists(st.just("lp"), max_size=2),
    st.integers(-2, 12) | st.booleans() | st.floats(),
    st.booleans() | st.integers(0, 2) | st.text(max_size=3),
    st.sampled_from(INITS) | st.text(max_size=3),
)
def test_a_layer_is_made_and_runs_or_says_what_is_wrong(in_channels, scale, style, groups, dyscope, init):
    try:
        layer = DySample(in_channels, scale, style, groups, dyscope, init)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = None
        assert layer(torch.zeros(1, in_channels, 2, 3)).shape == (1, in_channels, 2 * scale, 3 * scale)
    assert refusal is None or "must be" in refusal or "needs" in refusal
