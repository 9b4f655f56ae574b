"""The header of a file of measurements: what the figures hold for."""
import datetime
import json
import os
import platform
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The benchmark, where there is one: scripts/env.
PEER_DIR = os.environ.get("PEER_DIR", "")

# Sizes and rates of the benchmark, as its head names them.
SIZES = {"N": "100000", "RATE": "500", "SECONDS_P2": "30", "PAY": "20000", "N_TIMERS": "50000", "RATE_TIMERS": "2500",
         "TTL_TIMERS": "20000", "PARTITIONS": "4", "CONNECTIONS": "16"}
# Settings of the peer that its environment can change, with what it takes otherwise.
PEER = {"COMMIT_INTERVAL_MS": "100", "STREAM_THREADS": "2", "STORE_CACHE": "false", "GROUP_PROTOCOL": "classic",
        "BATCH_SIZE": "131072", "LINGER_MS": "100", "COMPRESSION": "none", "RETRY_BACKOFF_MS": "100",
        "MAX_POLL_RECORDS": "1000", "HTTP_THREADS": "2", "ROCKSDB_BYTES": "268435456", "MALLOC_ARENA_MAX": "2",
        "JAVA_OPTS": "-Xms512m -Xmx512m -XX:+UseParallelGC"}
# Ours that say where, not how.
PLACES = {"kafka_brokers", "instance_id", "http_addr", "advertised_addr", "state_dir", "jwt_key", "cluster_key", "dev_auth",
          "log_format", "rust_log"}


MEMORY_KB = r"^MemTotal:\s*(\d+)"


def first(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def said(*command):
    """What a command prints, on either stream; nothing where there is no such command."""
    try:
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    except OSError:
        return ""


def machine():
    return {
        "processor": first(r"^model name\s*:(.*)", read("/proc/cpuinfo")) + f", {os.cpu_count()} cores",
        "memory": f"{int(first(MEMORY_KB, read('/proc/meminfo'))) / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": first(r'^PRETTY_NAME="?([^"\n]*)', read("/etc/os-release")),
    }


def versions(bench, peer):
    lock = read(os.path.join(ROOT, "Cargo.lock"))
    crate = lambda name: first(rf'name = "{name}"\nversion = "([^"]*)"', lock)
    of_the_benchmark = lambda path: read(os.path.join(PEER_DIR, path)) if PEER_DIR else ""
    return {
        "Rust": first(r"^rustc (.*)", said("rustc", "--version")),
        "librdkafka (crate)": crate("rdkafka-sys"),
        "RocksDB (crate)": crate("librocksdb-sys"),
        "Java": first(r'version "([^"]*)"', said("java", "-version")),
        **({"Kafka, of the benchmark": first(r"^VERSION=(.*)", of_the_benchmark("kafka"))} if bench else
           {"Kafka, of own figures": first(r"^VERSION=(.*)", read(os.path.join(ROOT, "scripts/kafka")))}),
        **({"Kafka Streams": first(r"kafka-streams</artifactId><version>([^<]*)", of_the_benchmark("streams/pom.xml"))} if peer else {}),
    }


def ours():
    """What is in force for the binary, as it says itself."""
    settings = {}
    for name, value in re.findall(r'^(\w+) = "(.*?)"', said(os.environ.get("TICKETING", ""), "config", "--dev-auth"), re.MULTILINE):
        if name not in PLACES:
            settings[name] = value
    return settings


def show(bench, peer):
    settings = {"Turnstile": ours()}
    if peer:
        settings["the peer"] = {name: os.environ.get(name, value) for name, value in PEER.items()}
    if bench:
        settings["the broker of the benchmark"] = {"KAFKA_HEAP": os.environ.get("KAFKA_HEAP", "1g")}
    print(json.dumps({
        "phase": "header",
        "commit": said("git", "rev-parse", "HEAD").strip(),
        "dirty": bool(said("git", "status", "--porcelain", "--untracked-files=no").strip()),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(bench, peer),
        "sizes": {name: os.environ.get(name, value) for name, value in SIZES.items()} if bench else {},
        "settings": settings,
    }))
    sys.stdout.flush()
    return 0
