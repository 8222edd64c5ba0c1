/** A limit that a program is started under holds for the program, not for the pagers that stretch it. */

import { spawnSync } from 'node:child_process'
import test from 'ava'
import { TestCluster } from '../helpers/cluster.js'

const BEYOND = 3_000_000
const LIMITED = ['prlimit', '--fsize=1048576:']

test('a limit of file sizes, of the program and of a lender', async t => {
  const cluster = await TestCluster.make()
  t.teardown(() => cluster.stop())
  await cluster.startAgent('a')
  await cluster.startAgent('b', { prefix: LIMITED })
  await cluster.whenJoined(2)
  const script = `
    $SIG{XFSZ} = "IGNORE";
    my %h = map { ($_, $_ . "x" x 200) } 1 .. 40_000;
    my $sum = 0;
    $sum = ($sum * 31 + length $h{$_}) % 1_000_003 for 1 .. 40_000;
    open my $file, ">", "${cluster.path('file')}" or die;
    syswrite $file, "x" x ${BEYOND};
    print "$sum ", -s $file, "\\n";
    exit((syswrite($file, "x") // 0) + 3)`
  const command = ['perl', '-e', script]
  const alone = spawnSync(LIMITED[0] ?? '', [...LIMITED.slice(1), ...command])
  t.is(alone.status, 3)
  const flags = ['--memory', '8M', '--participants', '2', '--participants-min', '2', '--wait', '20s']
  const end = await cluster.run('a', flags, command, { prefix: LIMITED }).outcome
  t.is(end.stderr, '')
  t.is(end.status, 3)
  t.deepEqual(end.stdout, alone.stdout)
  t.true((end.stats?.pagesPushed ?? 0) > 0)

  const hard = ['setpriv', '--bounding-set', '-sys_resource', ...LIMITED.slice(0, 1), '--fsize=1048576']
  const refused = await cluster.run('a', flags, command, { prefix: hard }).outcome
  t.is(refused.status, 125)
  t.regex(refused.stderr, /^elasticos: the hard limit of file sizes .*\n$/)
})
