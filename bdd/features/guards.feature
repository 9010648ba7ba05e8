Feature: Guards, batches and engine streams
  A guard exists only over verified bytes. While it lives its shard stays; what it computed counts only if it finishes well.

  @VER-12
  Scenario: An owned guard travels between threads and keeps its manager
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a guard of part-0
    And the guard travels to another thread and reads llama there
    And I let go of the manager while the guard lives
    And the guard travels to another thread and reads llama there
    And the guard finishes
    Then it succeeds
    And the device has nothing left and freed nothing unwiped

  @VER-12 @VER-4
  Scenario: There is no owned guard of changed bytes
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When bit 3 of byte 69999 of part-0 flips in VRAM
    And I take a guard of part-0
    Then it is an integrity failure of part-0 that covers byte 69999
    And there is no guard
    When I go on
    And I release part-0
    Then used VRAM is zero

  @VER-12 @VER-3
  Scenario: Tasks hold their guards across awaits
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When 6 tasks execute part-0 at once and hold their guards across awaits
    Then it succeeds
    And the executions ended as: finished, finished, finished, finished, finished, finished
    When I release part-0
    Then used VRAM is zero

  @VER-12 @VER-5
  Scenario: No task gets a guard of changed bytes
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When bit 0 of byte 0 of part-0 flips in VRAM
    And 6 tasks execute part-0 at once and hold their guards across awaits
    Then there is no guard
    And the manager has stopped for integrity
    When I go on
    And I release part-0
    Then used VRAM is zero

  @VER-3
  Scenario: A shard is busy until its last guard is gone
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I take a guard of part-0
    And I take a guard of part-0
    Then part-0 is busy
    When the guard finishes
    Then part-0 is busy
    When the guard is dropped
    And I release part-0
    Then it succeeds
    And the executions ended as: finished, abandoned

  @VER-7 @VER-12
  Scenario: A batch begins all of its shards in order
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the shard part-2 is sealed from llama
    When I begin the batch part-2, part-0, part-1
    Then it succeeds
    And part-0 is busy
    And part-1 is busy
    And part-2 is busy
    When the batch finishes
    Then it succeeds
    And the executions ended as: finished, finished, finished

  @VER-7 @VER-5
  Scenario Outline: When one of a batch has changed none begins and none stays pinned
    Given a manager that quarantines only the shard
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the shard part-2 is sealed from llama
    When bit 3 of byte 69999 of <changed> flips in VRAM
    And I begin the batch part-2, part-0, part-1
    Then it is an integrity failure of <changed> that covers byte 69999
    And there is no guard
    When I go on
    And I begin the batch <others>
    Then it succeeds
    When the batch finishes
    And I release part-0
    And I release part-1
    And I release part-2
    Then used VRAM is zero

    Examples:
      | changed | others         |
      | part-0  | part-1, part-2 |
      | part-1  | part-2, part-0 |
      | part-2  | part-0, part-1 |

  @VER-7 @SEAL-4
  Scenario: A batch with a doubled or a released shard begins nothing
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I begin the batch part-0, part-1, part-0
    Then it fails with INVALID_PARAMS
    And the message contains "part-0 twice"
    And there is no guard
    When I go on
    And I release part-1
    And I begin the batch part-0, part-1
    Then it fails with STALE_HANDLE
    And there is no guard
    And the manager is ready
    When I go on
    And I begin the batch part-0
    Then it succeeds

  # On a GPU it costs the context: see the device suite.
  @DEV-5 @mock
  Scenario: A stray write to a sealed shard is stopped by the device and reported
    Given a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When the engine tries to enqueue 8 over 1 byte at 4999 of part-0
    Then it fails with CUDA_ERROR
    And the message contains "read_only"
    And the engine has 0 operations to do
    And the manager is ready
    When I go on
    And I execute part-0
    Then it read the weights nines

  @VER-10 @writable
  Scenario: A stream whose work leaves the bytes as they are is followed and served
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When the engine enqueues 9 over 5000 bytes at 0 of part-0
    And I take a guard of part-0 on the engine's stream
    Then it succeeds
    And the engine has 0 operations to do

  @VER-10 @VER-7 @writable
  Scenario: A batch follows the engine's stream too
    Given a device that cannot map memory read-only
    And a manager that quarantines only the shard
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And the shard part-1 is sealed from nines
    And an engine's stream
    When I begin on the engine's stream the batch part-0, part-1
    Then it succeeds
    When the batch finishes
    And the engine enqueues 8 over 1 byte at 0 of part-1
    And I begin on the engine's stream the batch part-0, part-1
    Then it is an integrity failure of part-1 that covers byte 0
    And there is no guard

  @VER-10 @writable
  Scenario: Finishing waits for what the engine enqueued
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a guard of part-0 on the engine's stream
    And the engine enqueues 9 over 5000 bytes at 0 of part-0
    And the engine enqueues 9 over 5000 bytes at 0 of part-0
    And the guard finishes
    Then it succeeds
    And the engine has 0 operations to do
    When I release part-0
    Then it succeeds

  @VER-10 @late @writable
  Scenario: A guard that does not know of the stream waits for nothing
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a guard of part-0
    And the engine enqueues 9 over 5000 bytes at 0 of part-0
    And the guard finishes
    Then it succeeds
    And the engine has 1 operation to do
    When the engine closes its stream
    And I release part-0
    Then it succeeds

  @VER-10 @VER-3 @late @writable
  Scenario: A dropped guard keeps its shard until the engine's queue has run
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a guard of part-0 on the engine's stream
    And the engine enqueues 9 over 5000 bytes at 0 of part-0
    And the guard is dropped
    Then the engine has 1 operation to do
    When I release part-0 as soon as the engine is done
    Then used VRAM is zero
    And the engine has 0 operations to do
    And the executions ended as: abandoned

  @VER-10 @VER-3 @faults @late @writable
  Scenario: A guard whose wait failed gives no result, and its shard stays until the engine is done
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a guard of part-0 on the engine's stream
    And the engine enqueues 9 over 5000 bytes at 0 of part-0
    And the device will fail a wait for the engine
    And the guard finishes
    Then it fails with CUDA_ERROR
    And the executions ended as: discarded
    When I go on
    And I release part-0 as soon as the engine is done
    Then used VRAM is zero
    And the engine has 0 operations to do

  @VER-12 @AUD-1
  Scenario: A guard that is held too long is reported once
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I take a guard of part-0 for at most 20 ms
    And I wait 50 ms
    And I verify part-1
    Then it was reported 1 time that a guard of part-0 is held too long
    When I verify part-1
    And the guard finishes
    # Nothing was taken from it: its result counts.
    Then it succeeds
    And it was reported 1 time that a guard of part-0 is held too long

  @VER-12 @AUD-1
  Scenario: A guard within its time is not reported
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I take a guard of part-0 for at most 600000 ms
    And I wait 50 ms
    And I verify part-1
    And the guard finishes
    Then it succeeds
    And it was reported 0 times that a guard of part-0 is held too long

  @SCR-3 @VER-12
  Scenario: What began before a shutdown counts when it ends in time
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I take a guard of part-0
    And a shutdown begins that waits up to 60000 ms
    Then the manager is draining
    When I take a guard of part-0
    Then it fails with MANAGER_STOPPED
    When I go on
    And I seal part-1 from llama
    Then it fails with MANAGER_STOPPED
    When I go on
    And the guard finishes
    Then it succeeds
    When the shutdown ends
    Then the shutdown was drained and left nothing
    And the manager has stopped for shutdown

  @SCR-3 @VER-5
  Scenario: What is still in use at a shutdown's deadline does not count, and is wiped later
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I take a guard of part-0
    And I shut down within 50 ms
    Then the shutdown left what is in use
    And part-0 is busy
    # It is evidence still.
    And part-0 still verifies
    When the guard finishes
    Then it fails with MANAGER_STOPPED
    When I go on
    And I release part-0
    Then used VRAM is zero

  @SCR-3 @VER-10 @writable
  Scenario: A shutdown waits for the engine's work behind a dropped guard
    Given a device that cannot map memory read-only
    And a manager
    And weights nines of 5000 bytes that are all 9
    And the shard part-0 is sealed from nines
    And an engine's stream
    When I take a guard of part-0 on the engine's stream
    And the engine enqueues 7 over 5000 bytes at 0 of part-0
    And the guard is dropped
    And I shut down within 30000 ms
    Then the shutdown was drained and left nothing
    And the engine has 0 operations to do
