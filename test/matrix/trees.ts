/**
 * Programs of the matrix that do not work alone: shells and interpreters with children, servers with clients. What is
 * stretched is the first process; its children run natively at home.
 */

import { join } from 'node:path'
import { lines, type MatrixProgram, only, python, script, which } from './program.js'

/** Its array is the memory; the parts of the pipelines are copies of the shell. */
const BASH = `
set -e -o pipefail
mapfile -t lines < "$1"
echo "\${#lines[@]} lines"
printf '%s\\n' "\${lines[@]}" | sort | cut -c1 | uniq -c | awk '{ sum += $1 * NR; print $2, $1 } END { print sum }'
for ((i = 0; i < \${#lines[@]}; i += 3)); do lines[i]="\${lines[i]:0:1500}"; done
( unset 'lines[7]'; echo "\${#lines[@]} in the subshell" )
printf '%s\\n' "\${lines[@]:0:99}" | { n=0; while read -r word rest; do n=$((n + \${#rest})); done; echo "$n characters"; }
cat <(printf '%s\\n' "\${lines[@]:0:20}") <(echo end) | cksum
echo "\${#lines[@]} lines, status $(exit 3 || echo $?)"
`

const PYTHON_PROCESSES = `
import multiprocessing, os, subprocess, sys

count = int(sys.argv[1])
rows = [("%d-" % (i * 7919 % count)) * 500 + str(i) for i in range(count)]

def digest(span):
    total = 0
    for i in range(*span):
        total = (total * 31 + len(rows[i]) + ord(rows[i][-1])) % 1000000007
    return total

def worker(own, inbox, outbox):
    for i in iter(inbox.get, None):
        outbox.put((i, len(rows[i]), rows[i][-3:]))
    outbox.put(own)

spans = [(i, min(i + count // 8, count)) for i in range(0, count, count // 8)]
alone = [digest(span) for span in spans]
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(digest, spans) == alone, sum(alone))
context = multiprocessing.get_context("fork")
inbox, outbox = context.Queue(), context.Queue()
workers = [context.Process(target=worker, args=(n, inbox, outbox)) for n in range(2)]
for each in workers:
    each.start()
for i in range(0, count, 50):
    inbox.put(i)
for each in workers:
    inbox.put(None)
answers, ended = [], 0
while ended < len(workers):
    answer = outbox.get(timeout=100)
    ended += isinstance(answer, int)
    if not isinstance(answer, int):
        answers.append(answer)
for each in workers:
    each.join()
print(sorted(answers)[:3], len(answers), [each.exitcode for each in workers])
text = "\\n".join(row[:40] for row in rows).encode()
packed = subprocess.run(["sort"], input=text, stdout=subprocess.PIPE, check=True, env={"LC_ALL": "C"}).stdout
print(packed.split()[:2], len(packed))
first = subprocess.Popen(["sort", "-n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
second = subprocess.Popen(["cksum"], stdin=first.stdout, stdout=subprocess.PIPE)
first.stdin.write(text)
first.stdin.close()
print(second.communicate()[0].split(), first.wait(), subprocess.run(["sh", "-c", "exit 7"]).returncode)
pid = os.fork()
if pid == 0:
    rows.reverse()
    os._exit(digest(spans[0]) % 100)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), digest(spans[0]) == alone[0])
`

/** Fills the server, has it benchmarked and saved meanwhile, reads all back, and shuts it down. */
const REDIS_CLIENT = `
import os, socket, subprocess, sys, time

path, count, benchmark = sys.argv[1], int(sys.argv[2]), sys.argv[3]
server = socket.socket(socket.AF_UNIX)
for attempt in range(600):
    try:
        server.connect(path)
        break
    except OSError:
        time.sleep(0.1)
server.settimeout(100)
stream = server.makefile("rb")

def send(*commands):
    out = []
    for command in commands:
        parts = [str(part).encode() for part in command]
        out.append(b"*%d\\r\\n" % len(parts) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(p), p) for p in parts))
    server.sendall(b"".join(out))
    return [answer() for command in commands]

def answer():
    line = stream.readline()
    kind, rest = line[:1], line[1:-2]
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [answer() for i in range(int(rest))]
    return int(rest) if kind == b":" else rest.decode()

def value(i):
    return ("%d:" % (i * 7919 % count)) * 400

def check():
    for i in range(0, count, 50):
        got = send(*[("GET", "key%d" % j) for j in range(i, min(i + 50, count))])
        for j, text in enumerate(got, i):
            if text != value(j).encode():
                sys.exit("key%d is %r" % (j, text and text[:40]))
    print(send(("DBSIZE",), ("LLEN", "list"), ("ZSCORE", "zset", "m7"), ("HGET", "hash", "f9"), ("DEBUG", "DIGEST")))

def saved():
    info = dict(line.split(":", 1) for line in send(("INFO", "persistence"))[0].decode().split("\\r\\n") if ":" in line)
    return info["rdb_bgsave_in_progress"] == "0" and info["rdb_last_bgsave_status"]

for i in range(0, count, 50):
    send(*[("SET", "key%d" % j, value(j)) for j in range(i, min(i + 50, count))])
send(*[("RPUSH", "list", "item%d" % i) for i in range(500)])
send(*[("ZADD", "zset", i * 37 % 101, "m%d" % i) for i in range(300)])
send(*[("HSET", "hash", "f%d" % i, "v%d" % i) for i in range(300)])
check()
kinds = "ping,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,mset"
load = [benchmark, "-s", path, "--dbnum", "1", "-q", "-n", str(count // 4), "-c", "20", "-P", "4", "-r", "500", "-d", "500"]
print(subprocess.run(load + ["-t", kinds], stdout=subprocess.DEVNULL).returncode)
print(send(("BGSAVE",)))
for attempt in range(1000):
    if saved():
        break
    time.sleep(0.05)
print(saved(), send(("SELECT", 1), ("FLUSHDB",), ("SELECT", 0)))
check()
print(send(("DEBUG", "RELOAD")))
check()
server.sendall(b"SHUTDOWN NOSAVE\\r\\n")
print(stream.read())
os.unlink(os.path.join(os.path.dirname(path), "dump.rdb"))
`

export const SERVERS_AND_TREES: readonly MatrixProgram[] = [
  {
    name: 'bash-pipeline',
    prepare: (directory, scale) => only(which('bash'), '-c', BASH, 'bash', lines(directory, scale)),
  },
  {
    name: 'python-processes',
    prepare: (directory, scale) =>
      only(
        python(),
        script(directory, 'processes.py', PYTHON_PROCESSES),
        scale === 'full' ? '12000' : '6000',
      ),
  },
  {
    name: 'redis',
    prepare: (directory, scale) => {
      const socket = join(directory, 'redis.sock')
      const benchmark = which('redis-benchmark', 'redis-tools')
      const flags = `--port 0 --unixsocket ${socket} --save --dir ${directory} --enable-debug-command yes`
      const client = script(directory, 'redis-client.py', REDIS_CLIENT)
      return {
        commands: [[which('redis-server'), ...flags.split(' '), '--logfile', join(directory, 'redis.log')]],
        files: [socket],
        client: [python(), client, socket, scale === 'full' ? '8000' : '4000', benchmark],
      }
    },
  },
]
