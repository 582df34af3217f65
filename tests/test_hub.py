"""Others read what a run exports: the Hub, vLLM, llama.cpp's converter."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import QUICK
from huggingface_hub import ModelCard
from safetensors.torch import load_file


@pytest.fixture
def exported(lit, in_tmp):
    """A folder that `export` wrote."""
    done = lit("fit", "--config", "lora.yaml", *QUICK, "--trainer.max_steps", "2")
    assert done.code == 0, done.err
    done = lit("export", "runs/lora/001", "--out", "out")
    assert done.code == 0, done.err
    return in_tmp / "out"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a push needs: the calls and files that came."""

    made, files = [], {}

    def _answer(self, status, body):
        told = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(told)

    def do_GET(self):
        known = any(body["name"] in self.path for path, body in self.made if path == "/api/repos/create")
        self._answer(200, {"id": "me/it"}) if known else self._answer(404, {"error": "none"})

    def do_POST(self):
        if self.headers.get("Authorization") != "Bearer hf_right":
            self._answer(401, {"error": "who are you?"})
            return
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/preupload/main"):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._answer(200, {"files": files})
        elif self.path.endswith("/commit/main"):
            lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
            self.files.update({line["path"]: base64.b64decode(line["content"]) for line in lines})
            self._answer(200, {"commitUrl": f"http://{self.headers['Host']}/me/it/commit/1", "commitOid": "1"})
        else:
            self.made.append((self.path, json.loads(body)))
            self._answer(200, {"url": f"http://{self.headers['Host']}/me/it", "name": "me/it", "id": "me/it"})

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub of this machine's own."""
    Hub.made, Hub.files = [], {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", where)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield Hub
    server.shutdown()


def test_a_pushed_folder_arrives_whole_and_private(exported, lit, hub):
    done = lit("push", "out", "--to", "me/it")
    assert done.code == 0, done.err
    assert hub.files == {str(f.relative_to(exported)): f.read_bytes() for f in exported.rglob("*") if f.is_file()}
    [(_, asked)] = [call for call in hub.made if call[0] == "/api/repos/create"]
    assert asked.get("private") or asked.get("visibility") == "private"
    again = lit("push", "out", "--to", "me/it")
    assert again.err == "error: me/it is on the Hub already: name another, or add --again true for a new version.\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: (out / "README.md").unlink(), "is no exported model with a card: make one by `export"),
        (lambda out: (out / "weights.bin").write_bytes(b"pickle"), "is not what export or merge writes"),
    ],
)
def test_what_export_did_not_write_is_not_pushed(exported, lit, hub, change, message):
    change(exported)
    done = lit("push", "out", "--to", "me/it")
    assert done.code == 1
    assert message in done.err
    assert not hub.made
    assert not hub.files


def test_who_may_not_write_is_told_to_log_in(exported, lit, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = lit("push", "out", "--to", "me/it")
    assert "the Hub refused me/it (401): log in by `hf auth login`" in done.err


def test_the_hub_reads_task_and_measures_from_the_card(exported):
    about = ModelCard.load(exported / "README.md").data
    summary = json.loads((exported.parent / "runs/lora/001/summary.json").read_text())
    assert (about.pipeline_tag, about.library_name, about.base_model) == ("text-generation", "peft", "tiny-clm")
    [result] = about.eval_results
    assert (result.metric_type, result.metric_value) == ("exact_match", summary["exact_match"])
    assert (result.dataset_type, result.dataset_split) == ("smallworld/medical-shorthand", "test")


def test_vllm_can_load_the_adapter(exported):
    """As its PEFT helper and LoRA loader ask: plain LoRA, known layers, two matrices of rank r for each."""
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (config["bias"], config["modules_to_save"], config["use_dora"]) == ("none", None, False)
    for name, tensor in load_file(exported / "adapter_model.safetensors").items():
        module, which, end = name.removeprefix("base_model.model.").rsplit(".", 2)
        assert (module == name, end) == (False, "weight")
        assert module.split(".")[-1] in config["target_modules"]
        assert tensor.shape[which == "lora_B"] == config["r"]


def test_llama_cpp_knows_each_tensor_and_number_of_a_merged_model(exported, lit, in_tmp):
    gguf = pytest.importorskip("gguf")
    done = lit("merge", "runs/lora/001", "--out", "merged")
    assert done.code == 0, done.err
    config = json.loads((in_tmp / "merged/config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    weights = load_file(in_tmp / "merged/model.safetensors")
    made = {names.get_name(name, try_suffixes=(".weight", ".bias")) for name in weights}
    assert None not in made
    assert {"token_embd.weight", "output_norm.weight"} <= made
    assert {t.dtype for t in weights.values()} == {torch.float32}
    numbers = {"hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps"}
    assert numbers <= config.keys()
    assert (in_tmp / "merged/tokenizer.json").is_file()
