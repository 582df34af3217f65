"""Tokens that are added to a vocabulary: their rows learn, are kept, and come back to the bit."""

import lightning as L
import pytest
import torch
from conftest import llama_config
from test_loss_and_gradients import fit

from lit_fm import IA3, CausalLM, Full, LoRA, Selective
from lit_fm.adapted import load_adapted

NEW = ["<dose>", "<drug>"]
EXAMPLES = [{"prompt": f"give <dose> of <drug> {i}", "completion": "<drug> then <dose>"} for i in range(4)]


def built(folder, adaptation, seed=7):
    L.seed_everything(seed)
    made = CausalLM(folder, adaptation, lambda p: torch.optim.AdamW(p, lr=1e-2), new_tokens=NEW)
    made.configure_model()
    return made


def rows(made, ids):
    """Of the embeddings and of the head, as they are used."""
    network = made.network.eval()
    with torch.no_grad():
        return network.get_input_embeddings()(torch.tensor(ids)), network(input_ids=torch.tensor([[5, 9]])).logits[
            ..., ids
        ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "adaptation",
    [
        lambda: LoRA(rank=4),
        lambda: Selective(["new-tokens"]),
        lambda: Selective(["new-tokens", "norms"]),
        lambda: Full(),
    ],
)
def test_new_rows_learn_and_come_back_to_the_bit_whatever_is_drawn_at_loading(
    make_backbone, tmp_path, adaptation, tied
):
    folder = make_backbone(f"tokens-{tied}", llama_config(tie_word_embeddings=tied))
    made = built(folder, adaptation())
    ids = made.tokenizer.convert_tokens_to_ids(NEW)
    assert min(ids) >= 2048
    before, old = rows(made, ids), made.network.get_input_embeddings().weight.detach()[:2048].clone()
    fit(made, [made.collate(made.encode(EXAMPLES, 100))] * 3, accumulate=1)
    assert not torch.isclose(before[0], rows(made, ids)[0]).all(1).any()
    if not isinstance(made.adaptation, Full):
        assert torch.equal(old, made.network.get_input_embeddings().weight.detach()[:2048])
    expected = made.network(input_ids=torch.tensor([[5, *ids, 9]])).logits
    made.export(tmp_path / "out")
    torch.manual_seed(99)  # another draw of the new rows
    network, tokenizer = load_adapted(str(tmp_path / "out"))
    assert tokenizer.convert_tokens_to_ids(NEW) == ids
    assert torch.equal(network.eval()(input_ids=torch.tensor([[5, *ids, 9]])).logits, expected)
    checkpoint = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    again = built(folder, adaptation(), seed=99)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    assert torch.equal(again.network.eval()(input_ids=torch.tensor([[5, *ids, 9]])).logits, expected)


def test_a_new_token_is_one_token_of_the_prompt(llama):
    made = built(llama, LoRA(rank=4))
    ids = made.encode(EXAMPLES[:1], 100)[0]["input_ids"].tolist()
    assert [ids.count(i) for i in made.tokenizer.convert_tokens_to_ids(NEW)] == [2, 2]


def test_what_would_leave_new_rows_random_is_refused(llama):
    with pytest.raises(ValueError, match="IA3 would leave their vectors random"):
        built(llama, IA3())
    with pytest.raises(ValueError, match="add new-tokens to learn"):
        built(llama, Selective(["norms"]))
    with pytest.raises(ValueError, match="there are no new tokens"):
        CausalLM(llama, Selective(["new-tokens"])).configure_model()
    with pytest.raises(ValueError, match="'a' is in the vocabulary already"):
        _ = CausalLM(llama, new_tokens=["a"]).tokenizer
